"""What can be done with tenants, their users and their policies, each with its row in the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from payments_ledger.access.policy import DEFAULT_POLICIES, ROLE_PERMISSIONS, Effect, Policy
from payments_ledger.access.queries import delete_policy as remove_policy
from payments_ledger.access.queries import list_policies, put_policies
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.access.zones import is_same_everywhere
from payments_ledger.commit.audit import AuditRecord, Origin, change, defer_audit
from payments_ledger.errors import (
    Invalid,
    OwnRights,
    PolicyNotFound,
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
from payments_ledger.tenants import queries
from payments_ledger.tenants.administration import Administrator, Change, audit_change, is_author, one_by_one
from payments_ledger.tenants.queries import Tenant, User
from payments_ledger.tenants.schemas import show_policy

# All of a tenant's policies are evaluated at each request: this many cost some 75 µs.
POLICIES_MAX = 100
# Where the other service names none: the least of everything.
PLAN_DEFAULT = "free"
REGION_DEFAULT = "unknown"
# Where the days of a new tenant's books begin and end, unless it says otherwise: most of them are in Brazil.
ZONE_DEFAULT = "America/Sao_Paulo"


# ----------------------------------------------------------------------------------------------------------------------
# Tenants


@dataclass(frozen=True, slots=True)
class AddTenant:
    """Adds a tenant with all that every tenant begins with."""

    tenant_id: str
    name: str
    plan: str
    region: str
    zone: str
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class SetTenantSuspended:
    """Suspends the tenant, or resumes it."""

    tenant_id: str
    suspended: bool
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class SynchronizeTenant:
    """A tenant as another service describes it; None is what it does not mention. Its zone never changes."""

    tenant_id: str
    name: str | None
    plan: str | None
    region: str | None
    zone: str | None
    updates: bool
    suspends: bool
    origin: Origin


async def begin_tenant(
    conn: Connection, *, tenant_id: str, name: str, plan: str, region: str, zone: str = ZONE_DEFAULT
) -> bool:
    """Adds a tenant with the roles, policies and accounts that every tenant begins with; whether it is new.

    One that exists keeps its zone and its own policies, and gets what it lacks of the rest. Raises Invalid of the zone.
    """
    if not is_same_everywhere(zone):
        raise Invalid("zone", "This is no IANA time zone such as America/Sao_Paulo.")
    is_new = await queries.insert_tenant(conn, tenant_id=tenant_id, name=name, plan=plan, region=region, zone=zone)
    if is_new:
        await put_policies(conn, tenant_id, DEFAULT_POLICIES)
    await queries.insert_roles(conn, tenant_id, ROLE_PERMISSIONS)
    if tenant_id != EVERY_TENANT:
        await insert_accounts(conn, tenant_id, DEFAULT_ACCOUNTS)
    return is_new


async def _add_tenant(conn: Connection, command: AddTenant) -> Tenant:
    """Raises TenantExists, or Invalid of the zone."""
    terms = {"name": command.name, "plan": command.plan, "region": command.region, "zone": command.zone}
    if not await begin_tenant(conn, tenant_id=command.tenant_id, **terms):
        raise TenantExists
    audit_change(conn, command, "tenant.create", command.tenant_id, change(None, terms))
    return Tenant(command.tenant_id, **terms, suspended_at=None)


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
    audit_change(conn, command, action, tenant.id, detail)
    changed = await queries.find_tenant(conn, tenant.id)
    assert changed is not None
    return changed


add_tenant = one_by_one(_add_tenant)
set_tenant_suspended = one_by_one(_set_tenant_suspended)


async def synchronize_tenants(conn: Connection, commands: Sequence[SynchronizeTenant]) -> list[None]:
    """Adds tenants that are new here, with the roles, policies and accounts of every tenant; then changes them.

    The order in which the messages come does not matter to the suspension: a deleted tenant that is created late, or
    once more, stays suspended.
    """
    for command in sorted(commands, key=lambda command: command.tenant_id):
        await begin_tenant(
            conn,
            tenant_id=command.tenant_id,
            name=command.name or command.tenant_id,
            plan=command.plan or PLAN_DEFAULT,
            region=command.region or REGION_DEFAULT,
            zone=command.zone or ZONE_DEFAULT,
        )
        if command.updates:
            await queries.update_tenant(
                conn, command.tenant_id, name=command.name, plan=command.plan, region=command.region
            )
        if command.suspends:
            await queries.set_suspended(conn, command.tenant_id, True)
    defer_audit(conn, [_synchronization(command) for command in commands])
    return [None] * len(commands)


def _synchronization(command: SynchronizeTenant) -> AuditRecord:
    terms = {"name": command.name, "plan": command.plan, "region": command.region, "zone": command.zone}
    action = "tenant.suspend" if command.suspends else "tenant.update" if command.updates else "tenant.create"
    return AuditRecord(command.tenant_id, command.origin, action, command.tenant_id, terms)


# ----------------------------------------------------------------------------------------------------------------------
# Users


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
class SetUserDisabled:
    """Disables the user, or enables them again."""

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


async def _add_user(conn: Connection, command: AddUser) -> User:
    """Raises UnknownTenant, UserExists, or Invalid for a role that the tenant does not have."""
    if await queries.find_tenant(conn, command.tenant_id) is None:
        raise UnknownTenant
    # The home of the global administrators may be as the migrations left it: its first user finds no role yet.
    await queries.insert_roles(conn, command.tenant_id, ROLE_PERMISSIONS)
    await _require_roles(conn, command.tenant_id, command.roles)
    is_new = await queries.insert_user(
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
    audit_change(conn, command, "user.create", str(command.user_id), detail)
    return await _find_user(conn, command)


async def _set_user_disabled(conn: Connection, command: SetUserDisabled) -> User:
    """Raises UserNotFound."""
    user = await _find_user(conn, command)
    if (user.disabled_at is not None) == command.disabled:
        return user
    await queries.set_disabled(conn, command.tenant_id, user.id, command.disabled)
    action = "user.disable" if command.disabled else "user.enable"
    detail = change({"disabled": not command.disabled}, {"disabled": command.disabled})
    audit_change(conn, command, action, str(user.id), detail)
    return await _find_user(conn, command)


async def _assign_roles(conn: Connection, command: AssignRoles) -> User:
    """Raises UserNotFound, or Invalid for a role that the tenant does not have."""
    user = await _find_user(conn, command)
    await _require_roles(conn, command.tenant_id, command.roles)
    if set(user.roles) == command.roles:
        return user
    await queries.replace_roles(conn, command.tenant_id, user.id, command.roles)
    detail = change({"roles": user.roles}, {"roles": sorted(command.roles)})
    audit_change(conn, command, "user.assign_roles", str(user.id), detail)
    return replace(user, roles=sorted(command.roles))


add_user = one_by_one(_add_user)
set_user_disabled = one_by_one(_set_user_disabled, user_of=lambda command: command.user_id)
assign_roles = one_by_one(_assign_roles, user_of=lambda command: command.user_id)


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


# ----------------------------------------------------------------------------------------------------------------------
# Policies


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Adds the policy, or replaces the one of the same name."""

    tenant_id: str
    policy: Policy
    administrator: Administrator


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    """Removes the policy of this name."""

    tenant_id: str
    name: str
    administrator: Administrator


async def _put_policy(conn: Connection, command: PutPolicy) -> Policy:
    """Raises TooManyPolicies or OwnRights."""
    policies = await _list_policies(conn, command.tenant_id)
    before, after = policies.get(command.policy.name), command.policy
    if before is None and len(policies) >= POLICIES_MAX:
        raise TooManyPolicies
    if before != after:
        _require_others(command, freed_from=before, allowed_by=after)
        await put_policies(conn, command.tenant_id, [after])
        audit_change(conn, command, "policy.put", after.name, change(_shown(before), _shown(after)))
    return after


async def _delete_policy(conn: Connection, command: DeletePolicy) -> None:
    """Raises PolicyNotFound or OwnRights."""
    before = (await _list_policies(conn, command.tenant_id)).get(command.name)
    if before is None:
        raise PolicyNotFound
    _require_others(command, freed_from=before)
    await remove_policy(conn, command.tenant_id, command.name)
    audit_change(conn, command, "policy.delete", command.name, change(_shown(before), None))


def _require_others(command: Change, *, freed_from: Policy | None, allowed_by: Policy | None = None) -> None:
    """Raises OwnRights if the change frees its author from a policy that names them, or allows them by name."""
    subject = command.administrator.origin.principal
    is_freed = freed_from and freed_from.effect is Effect.DENY and subject in freed_from.subjects
    is_allowed = allowed_by and allowed_by.effect is Effect.ALLOW and subject in allowed_by.subjects
    if is_author(command, subject) and (is_freed or is_allowed):
        raise OwnRights


put_policy = one_by_one(_put_policy)
delete_policy = one_by_one(_delete_policy)


async def _list_policies(conn: Connection, tenant_id: str) -> dict[str, Policy]:
    policies = await list_policies(conn, [tenant_id])
    return {policy.name: policy for policy in policies.get(tenant_id, ())}


def _shown(policy: Policy | None) -> dict[str, Any] | None:
    return show_policy(policy).model_dump(mode="json") if policy else None
