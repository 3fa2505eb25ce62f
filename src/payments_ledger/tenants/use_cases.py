"""What administrators change, each with its audit row: before, after, and by whom.

Who changes something is asked about in the database, under the locks of their tenant and of the one they change: what
a process remembers may be two seconds old. Nobody changes their own rights, and nobody locks themselves out: a change
after which its author could not administer the tenant any more is refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from payments_ledger.access.access_cache import standing_of
from payments_ledger.access.policy import (
    DEFAULT_POLICIES,
    ROLE_PERMISSIONS,
    Attempt,
    Effect,
    Permission,
    Policy,
    require_allowed,
    require_permission,
)
from payments_ledger.access.queries import (
    find_tenant_accesses,
    find_user_accesses,
    insert_roles,
    insert_user,
    list_policies,
    put_policies,
)
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.commit.audit import AuditRecord, Origin, change, defer_audit
from payments_ledger.commit.group_commit import UseCase
from payments_ledger.errors import (
    Invalid,
    LedgerError,
    OwnRights,
    PolicyNotFound,
    Rejected,
    TenantExists,
    TooManyPolicies,
    UnknownTenant,
    UserExists,
    UserNotFound,
    WouldLockOutAdministrator,
)
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Connection
from payments_ledger.tenants import admin_queries as queries
from payments_ledger.tenants.admin_queries import Tenant, User
from payments_ledger.tenants.queries import insert_tenant
from payments_ledger.tenants.schemas import show_policy

# All of a tenant's policies are looked through at each request: this many cost some 75 µs.
POLICIES_MAX = 100


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who changes something, and when they asked for it (`at`, with a zone).

    `home` is the tenant that they are a user of; None for an operator at the machine, whom no role and no policy binds.
    """

    origin: Origin
    home: str | None
    at: datetime
    mends_policies: bool = False


@dataclass(frozen=True, slots=True)
class AddTenant:
    tenant_id: str
    name: str
    plan: str
    region: str
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class AddUser:
    """`email` in lower case, as it is compared."""

    tenant_id: str
    user_id: UUID
    email: str
    password_hash: str = field(repr=False)
    roles: frozenset[str]
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Adds the policy, or replaces the one of the same name."""

    tenant_id: str
    policy: Policy
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    tenant_id: str
    name: str
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class SetUserDisabled:
    tenant_id: str
    user_id: UUID
    disabled: bool
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class AssignRoles:
    """Gives the user exactly these roles."""

    tenant_id: str
    user_id: UUID
    roles: frozenset[str]
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class SetTenantSuspended:
    tenant_id: str
    suspended: bool
    administrator: Administrator


type Change = AddTenant | AddUser | PutPolicy | DeletePolicy | SetUserDisabled | AssignRoles | SetTenantSuspended


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


def one_by_one[C: Change, O](carry_out: Callable[[Connection, C], Awaitable[O]]) -> UseCase[C, O | Rejected]:
    """A use case of commands that are rare: each reads what the one before has written, its author included."""

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
                outcomes.append(outcome)
            except LedgerError as error:
                outcomes.append(Rejected(error))
        return outcomes

    return carry_out_each


async def _require_right_still(conn: Connection, command: Change) -> None:
    """Raises WouldLockOutAdministrator if its author could not repeat it, OwnRights if it is about themselves."""
    try:
        await require_right(conn, command.administrator, command.tenant_id)
    except LedgerError:
        raise WouldLockOutAdministrator from None
    if isinstance(command, SetUserDisabled | AssignRoles) and _is_author(command, str(command.user_id)):
        raise OwnRights


def _is_author(command: Change, subject: str) -> bool:
    administrator = command.administrator
    return administrator.home == command.tenant_id and administrator.origin.principal == subject


async def begin_tenant(conn: Connection, *, tenant_id: str, name: str, plan: str, region: str) -> bool:
    """Adds a tenant with the roles, policies and accounts that every tenant begins with; whether it is new.

    One that exists keeps its own policies, and gets what it lacks of the rest.
    """
    is_new = await insert_tenant(conn, tenant_id=tenant_id, name=name, plan=plan, region=region)
    if is_new:
        await put_policies(conn, tenant_id, DEFAULT_POLICIES)
    await insert_roles(conn, tenant_id, ROLE_PERMISSIONS)
    if tenant_id != EVERY_TENANT:
        await insert_accounts(conn, tenant_id, DEFAULT_ACCOUNTS)
    return is_new


async def _add_tenant(conn: Connection, command: AddTenant) -> Tenant:
    """Raises TenantExists."""
    said = {"name": command.name, "plan": command.plan, "region": command.region}
    if not await begin_tenant(conn, tenant_id=command.tenant_id, **said):
        raise TenantExists
    _record(conn, command, "tenant.create", command.tenant_id, change(None, said))
    return Tenant(command.tenant_id, **said, suspended_at=None)


async def _add_user(conn: Connection, command: AddUser) -> User:
    """Raises UnknownTenant, UserExists, or Invalid for a role that the tenant does not have."""
    if await queries.find_tenant(conn, command.tenant_id) is None:
        raise UnknownTenant
    # Nobody but the migrations may have made the home of the global administrators: its first user finds no role yet.
    await insert_roles(conn, command.tenant_id, ROLE_PERMISSIONS)
    await _require_roles(conn, command.tenant_id, command.roles)
    is_new = await insert_user(
        conn,
        tenant_id=command.tenant_id,
        user_id=command.user_id,
        email=command.email,
        password_hash=command.password_hash,
        roles=command.roles,
    )
    if not is_new:
        raise UserExists
    detail = change(None, {"email": command.email, "roles": sorted(command.roles)})
    _record(conn, command, "user.create", str(command.user_id), detail)
    return await _find_user(conn, command)


async def _put_policy(conn: Connection, command: PutPolicy) -> Policy:
    """Raises TooManyPolicies or OwnRights."""
    policies = await _list_policies(conn, command.tenant_id)
    before, after = policies.get(command.policy.name), command.policy
    if before is None and len(policies) >= POLICIES_MAX:
        raise TooManyPolicies
    if before != after:
        _require_others(command, freed_from=before, allowed_by=after)
        await put_policies(conn, command.tenant_id, [after])
        _record(conn, command, "policy.put", after.name, change(_shown(before), _shown(after)))
    return after


async def _delete_policy(conn: Connection, command: DeletePolicy) -> None:
    """Raises PolicyNotFound or OwnRights."""
    before = (await _list_policies(conn, command.tenant_id)).get(command.name)
    if before is None:
        raise PolicyNotFound
    _require_others(command, freed_from=before)
    await queries.delete_policy(conn, command.tenant_id, command.name)
    _record(conn, command, "policy.delete", command.name, change(_shown(before), None))


def _require_others(command: Change, *, freed_from: Policy | None, allowed_by: Policy | None = None) -> None:
    """Raises OwnRights if the change frees its author from a policy that names them, or allows them by name."""
    subject = command.administrator.origin.principal
    is_freed = freed_from and freed_from.effect is Effect.DENY and subject in freed_from.subjects
    is_allowed = allowed_by and allowed_by.effect is Effect.ALLOW and subject in allowed_by.subjects
    if _is_author(command, subject) and (is_freed or is_allowed):
        raise OwnRights


async def _set_user_disabled(conn: Connection, command: SetUserDisabled) -> User:
    """Raises UserNotFound."""
    user = await _find_user(conn, command)
    if (user.disabled_at is not None) == command.disabled:
        return user
    await queries.set_disabled(conn, command.tenant_id, user.id, command.disabled)
    action = "user.disable" if command.disabled else "user.enable"
    detail = change({"disabled": not command.disabled}, {"disabled": command.disabled})
    _record(conn, command, action, str(user.id), detail)
    return await _find_user(conn, command)


async def _assign_roles(conn: Connection, command: AssignRoles) -> User:
    """Raises UserNotFound, or Invalid for a role that the tenant does not have."""
    user = await _find_user(conn, command)
    await _require_roles(conn, command.tenant_id, command.roles)
    if set(user.roles) == command.roles:
        return user
    await queries.replace_roles(conn, command.tenant_id, user.id, command.roles)
    detail = change({"roles": user.roles}, {"roles": sorted(command.roles)})
    _record(conn, command, "user.assign_roles", str(user.id), detail)
    return replace(user, roles=sorted(command.roles))


async def _set_tenant_suspended(conn: Connection, command: SetTenantSuspended) -> Tenant:
    """Raises UnknownTenant, or WouldLockOutAdministrator for the tenant of the global administrators."""
    tenant = await queries.find_tenant(conn, command.tenant_id)
    if tenant is None:
        raise UnknownTenant
    if command.suspended and tenant.id == EVERY_TENANT:
        raise WouldLockOutAdministrator
    if (tenant.suspended_at is not None) == command.suspended:
        return tenant
    await queries.set_suspended(conn, tenant.id, command.suspended)
    action = "tenant.suspend" if command.suspended else "tenant.resume"
    detail = change({"suspended": not command.suspended}, {"suspended": command.suspended})
    _record(conn, command, action, tenant.id, detail)
    changed = await queries.find_tenant(conn, tenant.id)
    assert changed is not None
    return changed


add_tenant = one_by_one(_add_tenant)
add_user = one_by_one(_add_user)
put_policy = one_by_one(_put_policy)
delete_policy = one_by_one(_delete_policy)
set_user_disabled = one_by_one(_set_user_disabled)
assign_roles = one_by_one(_assign_roles)
set_tenant_suspended = one_by_one(_set_tenant_suspended)


async def _list_policies(conn: Connection, tenant_id: str) -> dict[str, Policy]:
    policies = await list_policies(conn, [tenant_id])
    return {policy.name: policy for policy in policies.get(tenant_id, ())}


async def _find_user(conn: Connection, command: AddUser | SetUserDisabled | AssignRoles) -> User:
    user = await queries.find_user(conn, command.tenant_id, command.user_id)
    if user is None:
        raise UserNotFound
    return user


async def _require_roles(conn: Connection, tenant_id: str, roles: frozenset[str]) -> None:
    """Raises Invalid for a role that the tenant does not have."""
    permissions_by_role = await queries.list_permissions_by_role(conn, tenant_id)
    if unknown := sorted(roles - permissions_by_role.keys()):
        raise Invalid("roles", f"The tenant has no role {unknown[0]}.")


def _shown(policy: Policy | None) -> dict[str, Any] | None:
    return show_policy(policy).model_dump(mode="json") if policy else None


def _record(conn: Connection, command: Change, action: str, target: str, detail: dict[str, Any]) -> None:
    record = AuditRecord(command.tenant_id, command.administrator.origin, action, target, detail)
    defer_audit(conn, [record])
