"""What administrators read and write: policies, users, the tenant, its audit log and its injected faults.

Policies are flat JSON, amounts decimal strings, hours with their zone.
"""

from collections.abc import Collection
from datetime import datetime, time
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict

from payments_ledger.access.policy import MOVES_MONEY, AmountRange, DailyHours, Effect, Permission, Policy
from payments_ledger.access.zones import find_zone, is_same_everywhere
from payments_ledger.chaos.faults import LATENCY_MS_MAX
from payments_ledger.errors import Invalid, InvalidAmount, UnknownCurrency, together
from payments_ledger.money import exponent_of, format_amount, parse_money
from payments_ledger.validation.texts import WITHOUT_CONTROLS, Matching
from payments_ledger.web.bodies import Body
from payments_ledger.web.parameters import canonical

NAME = Matching(
    "[a-z0-9][a-z0-9_-]{0,63}", "must be 1 to 64 of the characters a-z, 0-9, _ and -, the first a letter or digit"
)
CLOCK = Matching("([01][0-9]|2[0-3]):[0-5][0-9]", "must be a time of day from 00:00 to 23:59")
# A condition that lists more is better stated by a role or a plan.
VALUES_MAX = 100


def _number_or_text(amount: Any) -> Any:
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        raise ValueError("must be a number or a decimal text such as 100.00")
    return amount


Value = Annotated[str, StringConstraints(min_length=1, max_length=128), WITHOUT_CONTROLS]
Values = Annotated[list[Value], Field(max_length=VALUES_MAX)]
Amount = Annotated[
    Any,
    BeforeValidator(_number_or_text),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "examples": ["1000.00"]}),
]
Clock = Annotated[str, CLOCK, Field(examples=["09:00"])]


class AmountTerms(Body):
    """In major units, both bounds inclusive; at least one of them."""

    currency: Annotated[str, Field(min_length=3, max_length=3, examples=["BRL"])]
    minimum: Amount | None = None
    maximum: Amount | None = None


class HoursTerms(Body):
    """Every day from `start` (inclusive) to `end` (exclusive) by the clocks of the IANA time zone."""

    start: Clock
    end: Clock
    zone: Annotated[str, StringConstraints(min_length=1, max_length=64), Field(examples=["America/Sao_Paulo"])]


TERMS_EXAMPLE: JsonDict = {
    "effect": "deny",
    "actions": ["payments:write"],
    "roles": ["ops"],
    "amount": {"currency": "BRL", "minimum": "1000.01"},
}


class PolicyTerms(Body):
    """An empty list, and null, is no condition. All conditions must be met; a list is met by any of its values."""

    model_config = ConfigDict(json_schema_extra={"examples": [TERMS_EXAMPLE]})

    effect: Effect
    actions: Annotated[list[Permission], Field(max_length=VALUES_MAX, default_factory=list)]
    roles: Values = Field(default_factory=list)
    subjects: Values = Field(default_factory=list)
    plans: Values = Field(default_factory=list)
    regions: Values = Field(default_factory=list)
    amount: AmountTerms | None = None
    hours: HoursTerms | None = None


class PolicyDocument(PolicyTerms):
    """A policy under the `name` that is unique within its tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ops-limit", **TERMS_EXAMPLE}]})

    name: str


class UserDocument(BaseModel):
    """`disabled_at` is null for a user who may log in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-0001-7000-8000-000000000001",
                    "email": "ops@demo",
                    "roles": ["ops"],
                    "disabled_at": "2026-01-31T12:00:00Z",
                    "created_at": "2026-01-01T00:00:00Z",
                }
            ]
        }
    )

    id: str
    email: str
    roles: list[str]
    disabled_at: datetime | None
    created_at: datetime


class Roles(Body):
    """Exactly these; an empty list removes all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["ops"]}]})

    roles: Values


class TenantDocument(BaseModel):
    """`suspended_at` is null for a tenant whose users may use it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "tenant_demo",
                    "name": "Demo",
                    "plan": "pro",
                    "region": "region-a",
                    "suspended_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    plan: str
    region: str
    suspended_at: datetime | None


class AuditDocument(BaseModel):
    """`detail` of a change holds the target `before` and `after`; null is that there was or is none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-9b2c-7d11-8e55-0242ac120003",
                    "at": "2026-01-31T12:00:00Z",
                    "principal": "01a20568-0001-7000-8000-000000000001",
                    "address": "192.0.2.7",
                    "action": "payment.authorize",
                    "target": "01a20568-8a1a-72a7-9083-66e400122dd8",
                    "correlation_id": "corr-demo-1",
                    "detail": {
                        "before": {"status": "CREATED"},
                        "after": {"status": "AUTHORIZED"},
                        "amount": "100.00 BRL",
                    },
                }
            ]
        }
    )

    id: str
    at: datetime
    principal: str
    address: str | None
    action: str
    target: str
    correlation_id: str
    detail: dict[str, Any]


class ChaosSettings(Body):
    """`fail_percent` of the tenant's requests, messages and events fail; requests and messages take longer."""

    # Strict: false is no number, and "yes" is no boolean.
    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"enabled": True, "fail_percent": 20, "latency_ms": 300}]}
    )

    enabled: bool
    fail_percent: Annotated[int, Field(ge=0, le=100)] = 0
    latency_ms: Annotated[int, Field(ge=0, le=LATENCY_MS_MAX)] = 0


def read_policy(name: str, terms: PolicyTerms) -> Policy:
    """The policy; raises Invalid with the faults of amount and hours."""
    refusals: list[Invalid] = []
    amount, hours = None, None
    try:
        amount = _amount_range(terms.amount, terms.actions) if terms.amount else None
    except Invalid as error:
        refusals.append(error)
    try:
        hours = _daily_hours(terms.hours) if terms.hours else None
    except Invalid as error:
        refusals.append(error)
    if refusals:
        raise together(refusals)
    return Policy(
        name=name,
        effect=terms.effect,
        actions=frozenset(terms.actions),
        roles=frozenset(terms.roles),
        # As tokens have them: a denial must not miss its user because of the spelling.
        subjects=frozenset(map(canonical, terms.subjects)),
        plans=frozenset(terms.plans),
        regions=frozenset(terms.regions),
        amount=amount,
        hours=hours,
    )


def show_policy(policy: Policy) -> PolicyDocument:
    """The policy as it would be sent: lists sorted, amounts in major units, hours as HH:MM."""
    amount, hours = policy.amount, policy.hours
    return PolicyDocument(
        name=policy.name,
        effect=policy.effect,
        actions=[Permission(action) for action in sorted(policy.actions)],
        roles=sorted(policy.roles),
        subjects=sorted(policy.subjects),
        plans=sorted(policy.plans),
        regions=sorted(policy.regions),
        amount=AmountTerms(
            currency=amount.currency,
            minimum=_text(amount.minimum, amount.currency),
            maximum=_text(amount.maximum, amount.currency),
        )
        if amount
        else None,
        hours=HoursTerms(start=f"{hours.start:%H:%M}", end=f"{hours.end:%H:%M}", zone=hours.zone.key)
        if hours
        else None,
    )


def _amount_range(terms: AmountTerms, actions: Collection[Permission]) -> AmountRange:
    if not actions or not MOVES_MONEY.issuperset(actions):
        raise Invalid("amount", f"Only a policy whose actions are among {', '.join(sorted(MOVES_MONEY))} has amounts.")
    try:
        exponent_of(terms.currency)
    except UnknownCurrency as error:
        raise error.within("amount") from None
    minimum = _minor_units("minimum", terms.minimum, terms.currency)
    maximum = _minor_units("maximum", terms.maximum, terms.currency)
    if minimum is None and maximum is None:
        raise Invalid("amount", "An amount needs a minimum or a maximum.")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise Invalid("amount", "The minimum must not be above the maximum.")
    return AmountRange(terms.currency, minimum, maximum)


def _minor_units(bound: str, amount: Any, currency: str) -> int | None:
    try:
        return None if amount is None else parse_money(amount, currency).amount
    except InvalidAmount as error:
        raise Invalid(f"amount/{bound}", error.detail) from None


def _daily_hours(terms: HoursTerms) -> DailyHours:
    if terms.start == terms.end:
        raise Invalid("hours", "The hours must not end when they start.")
    if not is_same_everywhere(terms.zone):
        raise Invalid("hours/zone", "This is no IANA time zone such as America/Sao_Paulo.")
    return DailyHours(time.fromisoformat(terms.start), time.fromisoformat(terms.end), find_zone(terms.zone))


def _text(amount: int | None, currency: str) -> str | None:
    return None if amount is None else format_amount(amount, currency)
