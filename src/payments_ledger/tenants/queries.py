"""The SQL of tenants, their roles and users, and the pages of their audit logs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from payments_ledger.errors import UnknownTenant
from payments_ledger.ledger.period import Period
from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Tenant:
    """`zone` (IANA) says when the days of its books begin. `suspended_at` is None for a tenant that may be used."""

    id: str
    name: str
    plan: str
    region: str
    zone: str
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class User:
    """`disabled_at` is None for a user who may log in."""

    id: UUID
    email: str
    roles: list[str]
    disabled_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A line of the audit log as it was written."""

    id: UUID
    at: datetime
    principal: str
    address: str | None
    action: str
    target: str
    correlation_id: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What the rows must have; None is any."""

    period: Period
    principal: str | None = None
    action: str | None = None
    target: str | None = None


async def find_tenant(conn: Connection, tenant_id: str) -> Tenant | None:
    """The tenant, suspended or not, if the transaction may see it."""
    cursor = conn.cursor(row_factory=class_row(Tenant))
    await cursor.execute(
        "SELECT tenant_id AS id, name, plan, region, zone, suspended_at FROM tenants WHERE tenant_id = %s", [tenant_id]
    )
    return await cursor.fetchone()


async def find_tenants(conn: Connection, tenant_ids: Collection[str]) -> set[str]:
    """Those of the tenants, which the transaction must have named, that exist."""
    cursor = await conn.execute("SELECT tenant_id FROM tenants WHERE tenant_id = ANY (%s)", [list(tenant_ids)])
    return {tenant_id for (tenant_id,) in await cursor.fetchall()}


async def require_tenant(conn: Connection, tenant_id: str) -> None:
    """Raises UnknownTenant unless the transaction, which must have named it or see every tenant, finds it."""
    if not await find_tenants(conn, [tenant_id]):
        raise UnknownTenant


async def find_suspended_tenants(conn: Connection, tenant_ids: Collection[str]) -> set[str]:
    """Those of the tenants, which the transaction must have named, that are suspended."""
    cursor = await conn.execute(
        "SELECT tenant_id FROM tenants WHERE tenant_id = ANY (%s) AND suspended_at IS NOT NULL", [list(tenant_ids)]
    )
    return {tenant_id for (tenant_id,) in await cursor.fetchall()}


async def list_tenants(conn: Connection) -> list[Tenant]:
    """Every tenant that the transaction's role may see, in the order of their ids."""
    cursor = conn.cursor(row_factory=class_row(Tenant))
    await cursor.execute(
        "SELECT tenant_id AS id, name, plan, region, zone, suspended_at FROM tenants ORDER BY tenant_id"
    )
    return await cursor.fetchall()


async def lock_tenant(conn: Connection, tenant_id: str) -> Tenant | None:
    """The tenant, locked until the transaction ends: changes of one tenant's administrators take turns."""
    cursor = conn.cursor(row_factory=class_row(Tenant))
    await cursor.execute(
        """
        SELECT tenant_id AS id, name, plan, region, zone, suspended_at FROM tenants WHERE tenant_id = %s
        FOR NO KEY UPDATE
        """,
        [tenant_id],
    )
    return await cursor.fetchone()


async def insert_tenant(conn: Connection, *, tenant_id: str, name: str, plan: str, region: str, zone: str) -> bool:
    """Adds the tenant unless it exists; whether it was added."""
    cursor = await conn.execute(
        """
        INSERT INTO tenants (tenant_id, name, plan, region, zone) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        RETURNING tenant_id
        """,
        [tenant_id, name, plan, region, zone],
    )
    return await cursor.fetchone() is not None


async def update_tenant(
    conn: Connection, tenant_id: str, *, name: str | None, plan: str | None, region: str | None
) -> None:
    """Changes what is not None."""
    await conn.execute(
        """
        UPDATE tenants
        SET name = coalesce(%s, name), plan = coalesce(%s, plan), region = coalesce(%s, region)
        WHERE tenant_id = %s
        """,
        [name, plan, region, tenant_id],
    )


async def set_suspended(conn: Connection, tenant_id: str, suspended: bool) -> None:
    """Suspends the tenant, or resumes it. One that is suspended already keeps the time of its suspension."""
    await conn.execute(
        "UPDATE tenants SET suspended_at = CASE WHEN %s THEN coalesce(suspended_at, now()) END WHERE tenant_id = %s",
        [suspended, tenant_id],
    )


async def insert_roles(conn: Connection, tenant_id: str, permissions_by_role: Mapping[str, Collection[str]]) -> None:
    """Adds the roles that the tenant does not have yet."""
    for role, permissions in permissions_by_role.items():
        await conn.execute(
            "INSERT INTO roles (tenant_id, name, permissions) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [tenant_id, role, sorted(permissions)],
        )


async def list_permissions_by_role(conn: Connection, tenant_id: str) -> dict[str, frozenset[str]]:
    """The tenant's roles."""
    cursor = await conn.execute("SELECT name, permissions FROM roles WHERE tenant_id = %s", [tenant_id])
    return {name: frozenset(permissions) for name, permissions in await cursor.fetchall()}


async def insert_user(
    conn: Connection, *, tenant_id: str, user_id: UUID, email: str, password_hash: str, roles: Collection[str]
) -> bool:
    """Adds a user with these roles, unless the tenant has a user of this e-mail; whether one was added."""
    cursor = await conn.execute(
        """
        INSERT INTO users (tenant_id, id, email, password_hash) VALUES (%s, %s, %s, %s)
        ON CONFLICT (tenant_id, email) DO NOTHING
        RETURNING id
        """,
        [tenant_id, user_id, email, password_hash],
    )
    is_new = await cursor.fetchone() is not None
    if is_new:
        await conn.execute(
            "INSERT INTO user_roles (tenant_id, user_id, role) SELECT %s, %s, role FROM unnest(%s::text[]) AS role",
            [tenant_id, user_id, sorted(roles)],
        )
    return is_new


async def find_user(conn: Connection, tenant_id: str, user_id: UUID) -> User | None:
    """The user, disabled or not."""
    cursor = conn.cursor(row_factory=class_row(User))
    await cursor.execute(
        """
        SELECT id, email, disabled_at, created_at,
               ARRAY(SELECT role FROM user_roles WHERE tenant_id = %(tenant_id)s AND user_id = users.id ORDER BY role)
                   AS roles
        FROM users
        WHERE tenant_id = %(tenant_id)s AND id = %(user_id)s
        """,
        {"tenant_id": tenant_id, "user_id": user_id},
    )
    return await cursor.fetchone()


async def find_user_id(conn: Connection, tenant_id: str, email: str) -> UUID | None:
    """The id of the user with this e-mail address, disabled or not."""
    cursor = await conn.execute("SELECT id FROM users WHERE tenant_id = %s AND email = %s", [tenant_id, email])
    row = await cursor.fetchone()
    return row[0] if row else None


async def list_tenants_of_user(conn: Connection, email: str) -> list[str]:
    """The tenants that have a user of this e-mail address, disabled or not: a policy shows a login these rows."""
    await conn.execute("SELECT set_config('payments_ledger.login_email', %s, true)", [email])
    cursor = await conn.execute("SELECT tenant_id FROM users WHERE email = %s ORDER BY tenant_id", [email])
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]


async def list_users(
    conn: Connection, tenant_id: str, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[User]:
    """Up to `limit` users, the first made first, beginning after a position (created_at, id)."""
    cursor = conn.cursor(row_factory=class_row(User))
    await cursor.execute(
        """
        SELECT id, email, disabled_at, created_at,
               ARRAY(SELECT role FROM user_roles WHERE tenant_id = %(tenant_id)s AND user_id = users.id ORDER BY role)
                   AS roles
        FROM users
        WHERE tenant_id = %(tenant_id)s
          AND (created_at, id) > (coalesce(%(after_at)s::timestamptz, '-infinity'), %(after_id)s::uuid)
        ORDER BY created_at, id
        LIMIT %(limit)s
        """,
        {
            "tenant_id": tenant_id,
            "after_at": after[0] if after else None,
            "after_id": after[1] if after else UUID(int=0),
            "limit": limit,
        },
    )
    return await cursor.fetchall()


async def set_disabled(conn: Connection, tenant_id: str, user_id: UUID, disabled: bool) -> None:
    """Disables the user as of now, or enables them again."""
    await conn.execute(
        "UPDATE users SET disabled_at = CASE WHEN %s THEN now() END WHERE tenant_id = %s AND id = %s",
        [disabled, tenant_id, user_id],
    )


async def replace_roles(conn: Connection, tenant_id: str, user_id: UUID, roles: Collection[str]) -> None:
    """Gives the user these roles of the tenant, and removes all others."""
    await conn.execute("DELETE FROM user_roles WHERE tenant_id = %s AND user_id = %s", [tenant_id, user_id])
    await conn.execute(
        "INSERT INTO user_roles (tenant_id, user_id, role) SELECT %s, %s, role FROM unnest(%s::text[]) AS role",
        [tenant_id, user_id, sorted(roles)],
    )


async def list_audit_entries(
    conn: Connection, tenant_id: str, wanted: AuditFilter, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[AuditEntry]:
    """Up to `limit` rows, newest first, beginning after a position (at, id)."""
    conditions = [sql.SQL("tenant_id = %(tenant_id)s")]
    # Only the conditions that are asked for, so that each combination has its own plan and index.
    if wanted.period.start:
        conditions.append(sql.SQL("at >= %(start)s"))
    if wanted.period.end:
        conditions.append(sql.SQL("at < %(end)s"))
    if wanted.principal is not None:
        conditions.append(sql.SQL("principal = %(principal)s"))
    if wanted.action is not None:
        conditions.append(sql.SQL("action = %(action)s"))
    if wanted.target is not None:
        conditions.append(sql.SQL("target = %(target)s"))
    if after:
        conditions.append(sql.SQL("(at, id) < (%(after_at)s, %(after_id)s)"))
    cursor = conn.cursor(row_factory=class_row(AuditEntry))
    await cursor.execute(
        sql.SQL(
            """
            SELECT id, at, principal, address, action, target, correlation_id, detail
            FROM audit_log
            WHERE {conditions}
            ORDER BY at DESC, id DESC
            LIMIT %(limit)s
            """
        ).format(conditions=sql.SQL(" AND ").join(conditions)),
        {
            "tenant_id": tenant_id,
            "start": wanted.period.start,
            "end": wanted.period.end,
            "principal": wanted.principal,
            "action": wanted.action,
            "target": wanted.target,
            "after_at": after[0] if after else None,
            "after_id": after[1] if after else None,
            "limit": limit,
        },
    )
    return await cursor.fetchall()
