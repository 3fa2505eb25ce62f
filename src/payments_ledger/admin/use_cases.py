"""What administrators change, each with its audit row: before, after, and by whom.

Nobody locks himself out: a change after which its author could not administer the tenant any more is refused.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from payments_ledger.admin import queries
from payments_ledger.admin.documents import show_policy
from payments_ledger.admin.queries import Tenant, User
from payments_ledger.audit import AuditRecord, Origin, change, record_audit
from payments_ledger.auth.policy import (
    DEFAULT_POLICIES,
    ROLE_PERMISSIONS,
    Attempt,
    Permission,
    Policy,
    decide,
)
from payments_ledger.auth.queries import insert_roles, insert_user, list_policies, put_policies
from payments_ledger.auth.tokens import EVERY_TENANT
from payments_ledger.batching import Command, UseCase
from payments_ledger.errors import (
    Invalid,
    LedgerError,
    LocksOut,
    PolicyNotFound,
    Rejected,
    TenantExists,
    TooManyPolicies,
    UnknownTenant,
    UserExists,
    UserNotFound,
)
from payments_ledger.ledger.postings import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.platform.postgres import Connection
from payments_ledger.tenants.queries import insert_tenant

# All of a tenant's policies are looked through at each request: this many cost some 75 µs.
POLICIES_MAX = 100


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who changes something: `attempt` is this very request, `home` the tenant whose policies bind them."""

    origin: Origin
    home: str
    attempt: Attempt

    def is_locked_out(self, tenant_id: str, policies: Iterable[Policy]) -> bool:
        """Whether they could not do this once more under the policies."""
        return self.home == tenant_id and not decide(policies, self.attempt).allowed


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
    role: str
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


def one_by_one[C: Command, O](carry_out: Callable[[Connection, C], Awaitable[O]]) -> UseCase[C, O | Rejected]:
    """A use case of commands that are rare: each reads what the one before has written."""

    async def carry_out_each(conn: Connection, commands: Sequence[C]) -> list[O | Rejected]:
        outcomes: dict[int, O | Rejected] = {}
        # Always in the order of the tenants, whose rows are locked.
        for command in sorted(commands, key=lambda command: command.tenant_id):
            try:
                outcomes[id(command)] = await carry_out(conn, command)
            except LedgerError as error:
                outcomes[id(command)] = Rejected(error)
        return [outcomes[id(command)] for command in commands]

    return carry_out_each


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
    if await queries.lock_tenant(conn, command.tenant_id) is None:
        raise UnknownTenant
    # Nobody but the migrations may have made the home of the global administrators: its first user finds no role yet.
    await insert_roles(conn, command.tenant_id, ROLE_PERMISSIONS)
    if command.role not in await queries.list_permissions_by_role(conn, command.tenant_id):
        raise Invalid("role", f"The tenant has no role {command.role}.")
    is_new = await insert_user(
        conn,
        tenant_id=command.tenant_id,
        user_id=command.user_id,
        email=command.email,
        password_hash=command.password_hash,
        role=command.role,
    )
    if not is_new:
        raise UserExists
    detail = change(None, {"email": command.email, "roles": [command.role]})
    _record(conn, command, "user.create", str(command.user_id), detail)
    added = await queries.find_user(conn, command.tenant_id, command.user_id)
    assert added is not None
    return added


async def _put_policy(conn: Connection, command: PutPolicy) -> Policy:
    """Raises TooManyPolicies or LocksOut."""
    policies = await _lock_policies(conn, command.tenant_id)
    before = policies.get(command.policy.name)
    policies[command.policy.name] = command.policy
    if len(policies) > POLICIES_MAX:
        raise TooManyPolicies
    if command.administrator.is_locked_out(command.tenant_id, policies.values()):
        raise LocksOut
    if before != command.policy:
        await put_policies(conn, command.tenant_id, [command.policy])
        detail = change(_shown(before), _shown(command.policy))
        _record(conn, command, "policy.put", command.policy.name, detail)
    return command.policy


async def _delete_policy(conn: Connection, command: DeletePolicy) -> None:
    """Raises PolicyNotFound or LocksOut."""
    policies = await _lock_policies(conn, command.tenant_id)
    before = policies.pop(command.name, None)
    if before is None:
        raise PolicyNotFound
    if command.administrator.is_locked_out(command.tenant_id, policies.values()):
        raise LocksOut
    await queries.delete_policy(conn, command.tenant_id, command.name)
    _record(conn, command, "policy.delete", command.name, change(_shown(before), None))


async def _set_user_disabled(conn: Connection, command: SetUserDisabled) -> User:
    """Raises UserNotFound or LocksOut."""
    user = await _lock_user(conn, command)
    if command.disabled and _is_themselves(command):
        raise LocksOut
    if (user.disabled_at is not None) == command.disabled:
        return user
    await queries.set_disabled(conn, command.tenant_id, user.id, command.disabled)
    action = "user.disable" if command.disabled else "user.enable"
    detail = change({"disabled": not command.disabled}, {"disabled": command.disabled})
    _record(conn, command, action, str(user.id), detail)
    return await _lock_user(conn, command)


async def _assign_roles(conn: Connection, command: AssignRoles) -> User:
    """Raises UserNotFound, LocksOut, or Invalid for a role that the tenant does not have."""
    user = await _lock_user(conn, command)
    permissions_by_role = await queries.list_permissions_by_role(conn, command.tenant_id)
    if unknown := sorted(command.roles - permissions_by_role.keys()):
        raise Invalid("roles", f"The tenant has no role {unknown[0]}.")
    if _is_themselves(command):
        administers = any(Permission.ADMIN in permissions_by_role[role] for role in command.roles)
        policies = await list_policies(conn, [command.tenant_id])
        attempt = replace(command.administrator.attempt, roles=command.roles)
        if not administers or not decide(policies.get(command.tenant_id, ()), attempt).allowed:
            raise LocksOut
    if set(user.roles) == command.roles:
        return user
    await queries.replace_roles(conn, command.tenant_id, user.id, command.roles)
    detail = change({"roles": user.roles}, {"roles": sorted(command.roles)})
    _record(conn, command, "user.assign_roles", str(user.id), detail)
    return replace(user, roles=sorted(command.roles))


async def _set_tenant_suspended(conn: Connection, command: SetTenantSuspended) -> Tenant:
    """Raises UnknownTenant, or LocksOut for the tenant of the global administrators."""
    tenant = await queries.lock_tenant(conn, command.tenant_id)
    if tenant is None:
        raise UnknownTenant
    if command.suspended and tenant.id == EVERY_TENANT:
        raise LocksOut
    if (tenant.suspended_at is not None) == command.suspended:
        return tenant
    await queries.set_suspended(conn, tenant.id, command.suspended)
    action = "tenant.suspend" if command.suspended else "tenant.resume"
    detail = change({"suspended": not command.suspended}, {"suspended": command.suspended})
    _record(conn, command, action, tenant.id, detail)
    changed = await queries.lock_tenant(conn, tenant.id)
    assert changed is not None
    return changed


add_tenant = one_by_one(_add_tenant)
add_user = one_by_one(_add_user)
put_policy = one_by_one(_put_policy)
delete_policy = one_by_one(_delete_policy)
set_user_disabled = one_by_one(_set_user_disabled)
assign_roles = one_by_one(_assign_roles)
set_tenant_suspended = one_by_one(_set_tenant_suspended)

type _Change = AddTenant | AddUser | PutPolicy | DeletePolicy | SetUserDisabled | AssignRoles | SetTenantSuspended


async def _lock_policies(conn: Connection, tenant_id: str) -> dict[str, Policy]:
    await queries.lock_tenant(conn, tenant_id)
    policies = await list_policies(conn, [tenant_id])
    return {policy.name: policy for policy in policies.get(tenant_id, ())}


async def _lock_user(conn: Connection, command: SetUserDisabled | AssignRoles) -> User:
    await queries.lock_tenant(conn, command.tenant_id)
    user = await queries.find_user(conn, command.tenant_id, command.user_id)
    if user is None:
        raise UserNotFound
    return user


def _is_themselves(command: SetUserDisabled | AssignRoles) -> bool:
    administrator = command.administrator
    return administrator.home == command.tenant_id and administrator.origin.principal == str(command.user_id)


def _shown(policy: Policy | None) -> dict[str, Any] | None:
    return show_policy(policy).model_dump(mode="json") if policy else None


def _record(conn: Connection, command: _Change, action: str, target: str, detail: dict[str, Any]) -> None:
    record = AuditRecord(command.tenant_id, command.administrator.origin, action, target, detail)
    record_audit(conn, [record])
