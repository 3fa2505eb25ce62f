"""Tenants and users from the command line: the use cases of administration, by an operator whom no policy binds."""

import asyncio
import os
import pwd
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.access.attempts import Forgotten, RedisAttempts
from payments_ledger.access.passwords import hash_password
from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.commit.group_commit import Command, UseCase
from payments_ledger.errors import Rejected, UserNotFound
from payments_ledger.operations.connections import transaction
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.tenants import queries
from payments_ledger.tenants.administration import Administrator
from payments_ledger.tenants.queries import Tenant, User, require_tenant
from payments_ledger.tenants.use_cases import (
    AddTenant,
    AddUser,
    AssignRoles,
    SetTenantSuspended,
    SetUserDisabled,
    add_tenant,
    add_user,
    assign_roles,
    set_tenant_suspended,
    set_user_disabled,
)

USERS_AT_ONCE = 1000


def operator() -> Origin:
    """Whoever runs this program, by the system's name for their user id: what the environment says is theirs to set."""
    user_id = os.getuid()
    try:
        name = pwd.getpwuid(user_id).pw_name
    except KeyError:
        # A container may run under a number that no user has.
        name = str(user_id)
    return Origin(f"cli:{name}", None, current_trace())


async def list_tenants(database_url: str) -> list[Tenant]:
    """Raises Unavailable."""
    async with transaction(database_url, role=auditor_role(database_url)) as conn:
        return await queries.list_tenants(conn)


async def create_tenant(database_url: str, *, tenant_id: str, name: str, plan: str, region: str) -> Tenant:
    """Raises TenantExists or Unavailable."""
    return await _carry_out(database_url, add_tenant, AddTenant(tenant_id, name, plan, region, _administrator()))


async def suspend_tenant(database_url: str, tenant_id: str, *, suspended: bool) -> Tenant:
    """Suspends the tenant, or lets it go on. Raises UnknownTenant, WouldLockOutAdministrator or Unavailable."""
    command = SetTenantSuspended(tenant_id, suspended, _administrator())
    return await _carry_out(database_url, set_tenant_suspended, command)


async def list_users(database_url: str, tenant_id: str) -> list[User]:
    """All of them, the first made first. Raises UnknownTenant or Unavailable."""
    users: list[User] = []
    async with transaction(database_url, tenants=[tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        while True:
            after = (users[-1].created_at, users[-1].id) if users else None
            page = await queries.list_users(conn, tenant_id, after=after, limit=USERS_AT_ONCE)
            users += page
            if len(page) < USERS_AT_ONCE:
                return users


async def create_user(database_url: str, *, tenant_id: str, email: str, password: str, roles: frozenset[str]) -> User:
    """Raises UnknownTenant, UserExists, Invalid (a role) or Unavailable."""
    password_hash = await asyncio.to_thread(hash_password, password)
    command = AddUser(tenant_id, uuid7(), email.lower(), password_hash, roles, _administrator())
    return await _carry_out(database_url, add_user, command)


async def disable_user(database_url: str, tenant_id: str, email: str, *, disabled: bool) -> User:
    """Disables the user, or lets them in again. Raises UnknownTenant, UserNotFound or Unavailable."""
    user_id = await _find_user(database_url, tenant_id, email)
    command = SetUserDisabled(tenant_id, user_id, disabled, _administrator())
    return await _carry_out(database_url, set_user_disabled, command)


async def give_roles(database_url: str, tenant_id: str, email: str, roles: frozenset[str]) -> User:
    """Gives the user exactly these roles. Raises UnknownTenant, UserNotFound, Invalid (a role) or Unavailable."""
    user_id = await _find_user(database_url, tenant_id, email)
    return await _carry_out(database_url, assign_roles, AssignRoles(tenant_id, user_id, roles, _administrator()))


async def find_tenants_of_user(database_url: str, email: str, tenant_id: str | None) -> list[str]:
    """The tenants that have a user of this e-mail address, or the one that is named.

    Raises UserNotFound or Unavailable.
    """
    async with transaction(database_url) as conn:
        tenants = await queries.list_tenants_of_user(conn, email.lower())
    if tenant_id is not None:
        tenants = [tenant_id] if tenant_id in tenants else []
    if not tenants:
        whose = f"The tenant {tenant_id} has no" if tenant_id is not None else "No tenant has a"
        raise UserNotFound(f"{whose} user {email}.")
    return tenants


async def unlock_user(database_url: str, redis_url: str, email: str, tenants: Sequence[str]) -> Forgotten:
    """Forgets the failed logins with the e-mail address, and writes that down in these tenants.

    Raises RedisUnavailable or Unavailable.
    """
    origin = operator()
    attempts = RedisAttempts(redis_url)
    try:
        async with transaction(database_url, tenants=tenants) as conn:
            # A part of the transaction ends when all of it was written: nothing is forgotten without its audit row.
            async with conn.transaction():
                defer_audit(conn, [AuditRecord(tenant, origin, "user.unlock", email.lower()) for tenant in tenants])
            return await attempts.forget(email.lower())
    finally:
        await attempts.close()


async def _find_user(database_url: str, tenant_id: str, email: str) -> UUID:
    async with transaction(database_url, tenants=[tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        user_id = await queries.find_user_id(conn, tenant_id, email.lower())
    if user_id is None:
        raise UserNotFound(f"The tenant {tenant_id} has no user {email}.")
    return user_id


async def _carry_out[C: Command, O](database_url: str, use_case: UseCase[C, O | Rejected], command: C) -> O:
    """In a transaction of its own, as the schema's owner; a refusal is raised."""
    async with transaction(database_url, tenants=[command.tenant_id]) as conn:
        [outcome] = await use_case(conn, [command])
        if isinstance(outcome, Rejected):
            raise outcome.error
    return outcome


def _administrator() -> Administrator:
    return Administrator(operator(), home=None, at=datetime.now(UTC))
