"""Who may change something in a tenant, decided in the transaction that changes it.

The answer comes from the database, under the locks of the author's tenant and of the one that is changed: what a
process remembers may be two seconds old. Nobody changes their own rights, and nobody locks themselves out: a change
after which its author could not administer the tenant any more is refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from payments_ledger.access.access_cache import standing_of
from payments_ledger.access.policy import Attempt, Permission, require_allowed, require_permission
from payments_ledger.access.queries import find_tenant_accesses, find_user_accesses
from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.commit.group_commit import UseCase
from payments_ledger.errors import LedgerError, OwnRights, Rejected, WouldLockOutAdministrator
from payments_ledger.postgres.database import Connection
from payments_ledger.tenants import queries


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who changes something, and when they asked for it (`at`, with a zone).

    `home` is the tenant that they are a user of; None for an operator at the machine, whom no role and no policy binds.
    """

    origin: Origin
    home: str | None
    at: datetime
    mends_policies: bool = False


class Change(Protocol):
    """A command of an administrator."""

    @property
    def tenant_id(self) -> str:
        """The tenant that it changes."""

    @property
    def administrator(self) -> Administrator:
        """Its author."""


async def lock_tenants(conn: Connection, changes: Sequence[tuple[Administrator, str]]) -> None:
    """Has changes wait for all others of the same tenants and by users of the same tenants.

    `changes` are their authors and the tenants that they change; the transaction must name both tenants.
    """
    homes = {administrator.home for administrator, _ in changes if administrator.home is not None}
    for tenant_id in sorted(homes | {tenant_id for _, tenant_id in changes}):
        await queries.lock_tenant(conn, tenant_id)


async def require_right(conn: Connection, administrator: Administrator, tenant_id: str) -> None:
    """Raises unless the administrator, as the database has them now, may administer the tenant.

    Raises TokenRevoked, UnknownTenant, TenantSuspended, PermissionDenied or PolicyDenied.
    """
    if administrator.home is None:
        return
    subject = administrator.origin.principal
    key = administrator.home, UUID(subject)
    users = await find_user_accesses(conn, [key])
    tenants = await find_tenant_accesses(conn, {administrator.home, tenant_id})
    standing = standing_of(users.get(key), tenants.get(administrator.home), tenants.get(tenant_id))
    require_permission(standing.user.permissions, Permission.ADMIN)
    attempt = Attempt(
        action=Permission.ADMIN,
        subject=subject,
        roles=frozenset(standing.user.roles),
        plan=standing.tenant.plan,
        region=standing.tenant.region,
        at=administrator.at,
        mends_policies=administrator.mends_policies,
    )
    require_allowed(standing.home.policies, attempt)


def one_by_one[C: Change, O](
    carry_out: Callable[[Connection, C], Awaitable[O]], *, user_of: Callable[[C], UUID] | None = None
) -> UseCase[C, O | Rejected]:
    """A use case of commands that are rare: each reads what the one before has written, its author included.

    `user_of` names the user whose rights a command changes. Rejected: what `carry_out` raises, what `require_right`
    raises, WouldLockOutAdministrator if the author could not repeat the change, OwnRights if it is about themselves.
    """

    async def carry_out_each(conn: Connection, commands: Sequence[C]) -> list[O | Rejected]:
        await lock_tenants(conn, [(command.administrator, command.tenant_id) for command in commands])
        outcomes: list[O | Rejected] = []
        for command in commands:
            try:
                await require_right(conn, command.administrator, command.tenant_id)
                # What turns out to be refused writes nothing.
                async with conn.transaction():
                    outcome = await carry_out(conn, command)
                    await _require_right_still(conn, command)
                    if user_of and is_author(command, str(user_of(command))):
                        raise OwnRights
                outcomes.append(outcome)
            except LedgerError as error:
                outcomes.append(Rejected(error))
        return outcomes

    return carry_out_each


def is_author(command: Change, subject: str) -> bool:
    """Whether the command was given by this user of the tenant that it changes."""
    administrator = command.administrator
    return administrator.home == command.tenant_id and administrator.origin.principal == subject


def audit_change(conn: Connection, command: Change, action: str, target: str, detail: dict[str, Any]) -> None:
    """Has the command's row in the audit log written with its transaction."""
    record = AuditRecord(command.tenant_id, command.administrator.origin, action, target, detail)
    defer_audit(conn, [record])


async def _require_right_still(conn: Connection, command: Change) -> None:
    try:
        await require_right(conn, command.administrator, command.tenant_id)
    except LedgerError:
        raise WouldLockOutAdministrator from None
