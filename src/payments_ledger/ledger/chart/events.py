"""The events of accounts: flat JSON."""

from datetime import datetime

from pydantic import BaseModel
from uuid_utils.compat import uuid7

from payments_ledger.commit.events import Event
from payments_ledger.ledger.accounts import Account
from payments_ledger.telemetry.tracing import Trace

CREATED = "ledger.account.created"
CLOSED = "ledger.account.closed"
REOPENED = "ledger.account.reopened"


class AccountEvent(BaseModel):
    """The body of each event of an account."""

    code: str
    tenant_id: str
    name: str
    type: str
    correlation_id: str
    occurred_at: datetime


def event_of(type_: str, tenant_id: str, account: Account, trace: Trace, at: datetime) -> Event:
    """The event of this type; its sequence is the account's version, its aggregate the account's id."""
    assert account.id is not None
    body = AccountEvent.model_construct(
        code=account.code,
        tenant_id=tenant_id,
        name=account.name,
        type=account.type.value,
        correlation_id=trace.correlation_id,
        occurred_at=at,
    )
    return Event(
        tenant_id=tenant_id,
        id=uuid7(),
        type=type_,
        aggregate_id=account.id,
        sequence=account.version,
        payload=body.model_dump_json(),
        trace=trace,
    )
