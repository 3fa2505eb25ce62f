"""May this caller do this for this tenant? Pure decisions: by the caller's roles first, then by policies.

A role brings permissions. Policies narrow them, over attributes of the caller, the tenant and the request: one that
denies wins over all that allow, and where none allows the answer is no.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum

from payments_ledger.access.tokens import EVERY_TENANT, Identity
from payments_ledger.access.zones import UnknownZone, Zone
from payments_ledger.errors import PermissionDenied, PolicyDenied, WrongTenant
from payments_ledger.money import Money


class Permission(StrEnum):
    """What a role can permit, and what `perms` lists."""

    PAYMENTS_WRITE = "payments:write"
    PAYMENTS_READ = "payments:read"
    PAYMENTS_REFUND = "payments:refund"
    LEDGER_READ = "ledger:read"
    LEDGER_WRITE = "ledger:write"
    EVENTS_READ = "events:read"
    ADMIN = "admin"


ROLE_PERMISSIONS: dict[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "finance": frozenset(
        {
            Permission.PAYMENTS_READ,
            Permission.PAYMENTS_REFUND,
            Permission.LEDGER_READ,
            Permission.LEDGER_WRITE,
            Permission.EVENTS_READ,
        }
    ),
    "ops": frozenset(
        {Permission.PAYMENTS_WRITE, Permission.PAYMENTS_READ, Permission.LEDGER_READ, Permission.EVENTS_READ}
    ),
    "sales": frozenset({Permission.PAYMENTS_READ}),
}
"""The roles that every tenant begins with. Migrations 0016 and 0019 gave older tenants what they lacked."""

MOVES_MONEY = frozenset({Permission.PAYMENTS_WRITE, Permission.PAYMENTS_REFUND, Permission.LEDGER_WRITE})
"""What an amount can be a condition of."""


class Effect(StrEnum):
    """What a policy says of the requests that meet all its conditions; one `deny` outweighs every `allow`."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class AmountRange:
    """Amounts of one currency, from `minimum` to `maximum` minor units, both inclusive; None is unbounded."""

    currency: str
    minimum: int | None = None
    maximum: int | None = None

    def holds(self, money: Money) -> bool:
        return (
            money.currency == self.currency
            and (self.minimum is None or money.amount >= self.minimum)
            and (self.maximum is None or money.amount <= self.maximum)
        )


@dataclass(frozen=True, slots=True)
class DailyHours:
    """Daily from `start` (inclusive) to `end` (exclusive) by the clocks of `zone`; start after end spans midnight.

    Of a zone that is unknown here, any moment may be within them.
    """

    start: time
    end: time
    zone: Zone

    def holds(self, instant: datetime) -> bool:
        if isinstance(self.zone, UnknownZone):
            return True
        clock = instant.astimezone(self.zone).time()
        if self.start <= self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is asked for, by whom, for which tenant, and when (`at`, with a zone).

    `money` is None where the request has no amount, or none yet: the door is passed before the body is read.
    `mends_policies` is that it lists or removes policies, by which alone one that nobody can decide is mended.
    """

    action: Permission
    subject: str
    roles: frozenset[str]
    plan: str
    region: str
    at: datetime
    money: Money | None = None
    mends_policies: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Allows or denies the attempts that meet all its conditions; an empty set, or None, is no condition."""

    name: str
    effect: Effect
    actions: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    plans: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    amount: AmountRange | None = None
    hours: DailyHours | None = None

    @property
    def is_undecidable(self) -> bool:
        """Whether this machine cannot tell if the conditions hold. Such a policy denies whatever it may be about."""
        return self.hours is not None and isinstance(self.hours.zone, UnknownZone)

    def meets(self, attempt: Attempt) -> bool:
        """Whether the conditions hold.

        Without an amount, one about amounts holds if it allows and not if it denies: the attempt may go on to where
        its amount is known, and is decided there once more.
        """
        return (
            (not self.actions or attempt.action in self.actions)
            and (not self.roles or not self.roles.isdisjoint(attempt.roles))
            and (not self.subjects or attempt.subject in self.subjects)
            and (not self.plans or attempt.plan in self.plans)
            and (not self.regions or attempt.region in self.regions)
            and (self.hours is None or self.hours.holds(attempt.at))
            and (self.amount is None or self._amount_holds(self.amount, attempt.money))
        )

    def _amount_holds(self, amount: AmountRange, money: Money | None) -> bool:
        return self.effect is Effect.ALLOW if money is None else amount.holds(money)


DEFAULT_POLICIES = (Policy("what-roles-permit", Effect.ALLOW),)
"""The policies that every tenant begins with: nothing is narrowed. Migration 0003 gave the same to older tenants."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an attempt is allowed, and the policy that said so; None if no policy allows it."""

    allowed: bool
    policy: str | None


def decide(policies: Iterable[Policy], attempt: Attempt) -> Verdict:
    """Deny wins; where nothing allows, the answer is no."""
    allowed_by: str | None = None
    for policy in policies:
        if policy.is_undecidable and attempt.mends_policies:
            continue
        if policy.meets(attempt):
            if policy.effect is Effect.DENY or policy.is_undecidable:
                return Verdict(False, policy.name)
            allowed_by = allowed_by or policy.name
    return Verdict(allowed_by is not None, allowed_by)


def require_allowed(policies: Iterable[Policy], attempt: Attempt) -> None:
    """Raises PolicyDenied unless the policies allow the attempt."""
    verdict = decide(policies, attempt)
    if not verdict.allowed:
        raise PolicyDenied(f"The policy {verdict.policy} denies this." if verdict.policy else None)


def require_tenant(identity: Identity, permission: Permission, tenant_id: str) -> None:
    """Raises WrongTenant unless the identity may act for the tenant.

    A global administrator may for any, and for the tenant * itself to administer it: it holds no payments.
    """
    if identity.tenant_id not in (tenant_id, EVERY_TENANT):
        raise WrongTenant
    if tenant_id == EVERY_TENANT and (identity.tenant_id != EVERY_TENANT or permission is not Permission.ADMIN):
        raise WrongTenant


def require_permission(permissions: frozenset[str], permission: Permission) -> None:
    """Raises PermissionDenied unless the caller's roles bring the permission."""
    if permission not in permissions:
        raise PermissionDenied(f"This needs the permission {permission}.")
