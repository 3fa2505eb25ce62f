"""Users in the operator's hands: list, add, disable, give roles, unlock."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.access.attempts import Forgotten, RedisAttempts
from payments_ledger.access.passwords import hash_password
from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.errors import UserNotFound
from payments_ledger.operations.administration import administer, operator_of
from payments_ledger.postgres.database import Database
from payments_ledger.tenants import queries
from payments_ledger.tenants.queries import User, require_tenant
from payments_ledger.tenants.use_cases import (
    AddUser,
    AssignRoles,
    SetUserDisabled,
    add_user,
    assign_roles,
    set_user_disabled,
)

USERS_AT_ONCE = 1000


async def list_users(owner: Database, tenant_id: str) -> list[User]:
    """All of them, the first made first. Raises UnknownTenant or Unavailable."""
    users: list[User] = []
    async with owner.transaction([tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        while True:
            after = (users[-1].created_at, users[-1].id) if users else None
            page = await queries.list_users(conn, tenant_id, after=after, limit=USERS_AT_ONCE)
            users += page
            if len(page) < USERS_AT_ONCE:
                return users


async def create_user(
    owner: Database, origin: Origin, *, tenant_id: str, email: str, password: str, roles: frozenset[str]
) -> User:
    """Raises UnknownTenant, UserExists, Invalid (a role) or Unavailable."""
    password_hash = await asyncio.to_thread(hash_password, password)
    command = AddUser(tenant_id, uuid7(), email.lower(), password_hash, roles, operator_of(origin))
    return await administer(owner, add_user, command)


async def disable_user(owner: Database, origin: Origin, tenant_id: str, email: str, *, disabled: bool) -> User:
    """Disables the user, or enables them again. Raises UnknownTenant, UserNotFound or Unavailable."""
    user_id = await _find_user(owner, tenant_id, email)
    command = SetUserDisabled(tenant_id, user_id, disabled, operator_of(origin))
    return await administer(owner, set_user_disabled, command)


async def give_roles(owner: Database, origin: Origin, tenant_id: str, email: str, roles: frozenset[str]) -> User:
    """Gives the user exactly these roles. Raises UnknownTenant, UserNotFound, Invalid (a role) or Unavailable."""
    user_id = await _find_user(owner, tenant_id, email)
    return await administer(owner, assign_roles, AssignRoles(tenant_id, user_id, roles, operator_of(origin)))


async def find_tenants_of_user(owner: Database, email: str, tenant_id: str | None) -> list[str]:
    """The tenants that have a user of this e-mail address, or the one that is named.

    Raises UserNotFound or Unavailable.
    """
    async with owner.transaction() as conn:
        tenants = await queries.list_tenants_of_user(conn, email.lower())
    if tenant_id is not None:
        tenants = [tenant_id] if tenant_id in tenants else []
    if not tenants:
        whose = f"The tenant {tenant_id} has no" if tenant_id is not None else "No tenant has a"
        raise UserNotFound(f"{whose} user {email}.")
    return tenants


async def unlock_user(
    owner: Database, origin: Origin, attempts: RedisAttempts, email: str, tenants: Sequence[str]
) -> Forgotten:
    """Forgets the failed logins with the e-mail address, with a row in the audit log of each of these tenants.

    Raises RedisUnavailable or Unavailable.
    """
    async with owner.transaction(tenants) as conn:
        # A part of the transaction ends when all of it was written: nothing is forgotten without its audit row.
        async with conn.transaction():
            defer_audit(conn, [AuditRecord(tenant, origin, "user.unlock", email.lower()) for tenant in tenants])
        return await attempts.forget(email.lower())


async def _find_user(owner: Database, tenant_id: str, email: str) -> UUID:
    async with owner.transaction([tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        user_id = await queries.find_user_id(conn, tenant_id, email.lower())
    if user_id is None:
        raise UserNotFound(f"The tenant {tenant_id} has no user {email}.")
    return user_id
