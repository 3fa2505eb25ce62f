"""The SQL of users and their roles."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from payments_ledger.platform.postgres import Connection


@dataclass(frozen=True, slots=True)
class User:
    """An enabled user with what a token says of them."""

    tenant_id: str
    id: UUID
    password_hash: str
    roles: list[str]
    permissions: list[str]
    plan: str
    region: str


async def tenants_of_email(conn: Connection, email: str) -> list[str]:
    """The tenants that have an enabled user of this e-mail; a policy lets a login see these rows, and no others."""
    await conn.execute("SELECT set_config('payments_ledger.login_email', %s, true)", [email])
    cursor = await conn.execute("SELECT tenant_id FROM users WHERE email = %s AND disabled_at IS NULL", [email])
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]


async def find_user(conn: Connection, tenant_id: str, email: str) -> User | None:
    cursor = conn.cursor(row_factory=class_row(User))
    await cursor.execute(
        """
        SELECT "user".tenant_id, "user".id, "user".password_hash, tenant.plan, tenant.region,
               array_agg(DISTINCT role.name) AS roles,
               array_agg(DISTINCT permission) AS permissions
        FROM users AS "user"
        JOIN tenants AS tenant USING (tenant_id)
        JOIN user_roles AS held ON held.tenant_id = "user".tenant_id AND held.user_id = "user".id
        JOIN roles AS role ON role.tenant_id = held.tenant_id AND role.name = held.role
        CROSS JOIN unnest(role.permissions) AS permission
        WHERE "user".tenant_id = %s AND "user".email = %s AND "user".disabled_at IS NULL
        GROUP BY "user".tenant_id, "user".id, "user".password_hash, tenant.plan, tenant.region
        """,
        [tenant_id, email],
    )
    return await cursor.fetchone()


async def insert_roles(conn: Connection, tenant_id: str, permissions_by_role: Mapping[str, Collection[str]]) -> None:
    """Adds the roles that the tenant does not have yet."""
    for role, permissions in permissions_by_role.items():
        await conn.execute(
            "INSERT INTO roles (tenant_id, name, permissions) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [tenant_id, role, sorted(permissions)],
        )


async def insert_user(
    conn: Connection, *, tenant_id: str, user_id: UUID, email: str, password_hash: str, role: str
) -> None:
    """Adds a user with one role, unless the tenant has a user of this e-mail."""
    cursor = await conn.execute(
        """
        INSERT INTO users (tenant_id, id, email, password_hash) VALUES (%s, %s, %s, %s)
        ON CONFLICT (tenant_id, email) DO NOTHING
        """,
        [tenant_id, user_id, email, password_hash],
    )
    if cursor.rowcount:
        await conn.execute(
            "INSERT INTO user_roles (tenant_id, user_id, role) VALUES (%s, %s, %s)", [tenant_id, user_id, role]
        )
