"""Tenants kept in step with the service that owns them: created, updated, and suspended when they are deleted there."""

import json
import re
from typing import Annotated, Any

import structlog
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from payments_ledger.access.zones import is_same_everywhere
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.messaging.handling import ANY_TYPE
from payments_ledger.messaging.messages import DeadLetter, Handler, Message
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.tenants.use_cases import SynchronizeTenant, synchronize_tenants
from payments_ledger.validation.exact_json import parse_exact_json
from payments_ledger.validation.faults import invalid_body
from payments_ledger.validation.texts import Matching

log = structlog.get_logger(__name__)

TENANT_CREATED = "tenant.created"
TENANT_UPDATED = "tenant.updated"
TENANT_DELETED = "tenant.deleted"

EVENT_TYPES = (TENANT_CREATED, TENANT_UPDATED, TENANT_DELETED)
# What an envelope around the message calls its content, and the type of the event.
_CONTENT_NAMES = ("data", "payload")
_EVENT_TYPE_NAMES = ("event_type", "eventType")
# What it calls the tenant. Beside it `id` is the event's own.
_AGGREGATE_ID_NAMES = ("aggregate_id", "aggregateId")
# The words of tenant.created, TENANT_CREATED and TenantCreated.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", re.ASCII)

PRINCIPAL = "tenant-sync"

# Never *, the home of the global administrators.
_TENANT_ID = Matching(r"[A-Za-z0-9._:-]{1,64}", "must be 1 to 64 letters, digits and . _ : -")
# PostgreSQL's texts hold none.
_WITHOUT_NUL = Matching(r"[^\x00]*", "must not hold a NUL character")

Words = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200), _WITHOUT_NUL]


def _known_zone(name: str) -> str:
    if not is_same_everywhere(name):
        raise ValueError("must be an IANA time zone such as America/Sao_Paulo")
    return name


class TenantMessage(BaseModel):
    """The body of tenant.created, tenant.updated and tenant.deleted; what an update leaves out stays as it is.

    `zone` (IANA) counts for a tenant that is new here, and never changes.
    """

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name)))
    )

    tenant_id: Annotated[
        str,
        StringConstraints(strict=True),
        _TENANT_ID,
        Field(validation_alias=AliasChoices("tenant_id", "tenantId", "id")),
    ]
    name: Words | None = None
    plan: Words | None = None
    region: Words | None = None
    zone: Annotated[Words, AfterValidator(_known_zone)] | None = None


class TenantMessages:
    """Handles the messages by submitting them to the group commit."""

    def __init__(self, commands: GroupCommit) -> None:
        self._commands = commands

    def handlers(self) -> dict[str, Handler]:
        """Of every key: a publisher may use keys of its own, and name the type of the event in the body."""
        return dict.fromkeys((*EVENT_TYPES, ANY_TYPE), self._synchronize)

    async def _synchronize(self, message: Message) -> None:
        event_type, tenant = read_tenant(message)
        command = SynchronizeTenant(
            tenant_id=tenant.tenant_id,
            name=tenant.name,
            plan=tenant.plan,
            region=tenant.region,
            zone=tenant.zone,
            updates=event_type == TENANT_UPDATED,
            suspends=event_type == TENANT_DELETED,
            origin=Origin(PRINCIPAL, None, current_trace()),
        )
        await self._commands.submit(synchronize_tenants, command)
        log.info("tenant synchronized", tenant_id=tenant.tenant_id, type=event_type)


def read_tenant(message: Message) -> tuple[str, TenantMessage]:
    """The type of the event and its tenant, out of its envelope if it has one; raises DeadLetter."""
    try:
        content = parse_exact_json(message.body)
    except json.JSONDecodeError as error:
        raise DeadLetter(f"not JSON: {error.msg}") from None
    if not isinstance(content, dict):
        raise DeadLetter("not a JSON object")
    event_type = _event_type(content, message.type)
    envelope = content
    for name in _CONTENT_NAMES:
        if isinstance(content.get(name), dict):
            content = content | content[name]
    # Whom the event is about is for the envelope to say, whatever else its content names.
    for named in (content, envelope):
        for name in _AGGREGATE_ID_NAMES:
            if name in named:
                content["tenant_id"] = named[name]
    try:
        return event_type, TenantMessage.model_validate(content)
    except ValidationError as error:
        raise DeadLetter(f"not a tenant event: {invalid_body(error).detail}") from None


def _event_type(content: dict[str, Any], routing_key: str) -> str:
    """The last two words of the type that the envelope names, or else of the routing key."""
    named = next((content[name] for name in _EVENT_TYPE_NAMES if name in content), routing_key)
    words = _WORD.findall(named) if isinstance(named, str) else []
    event_type = ".".join(words[-2:]).lower()
    if event_type not in EVENT_TYPES:
        raise DeadLetter(f"no handler for {named}")
    return event_type
