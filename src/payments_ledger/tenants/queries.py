"""The SQL of tenants."""

from collections.abc import Collection

from payments_ledger.errors import UnknownTenant
from payments_ledger.postgres.database import Connection


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


async def insert_tenant(conn: Connection, *, tenant_id: str, name: str, plan: str, region: str) -> bool:
    """Adds the tenant unless it exists; whether it was added."""
    cursor = await conn.execute(
        """
        INSERT INTO tenants (tenant_id, name, plan, region) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        RETURNING tenant_id
        """,
        [tenant_id, name, plan, region],
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


async def suspend_tenant(conn: Connection, tenant_id: str) -> None:
    """Suspends the tenant; a second time changes nothing."""
    await conn.execute(
        "UPDATE tenants SET suspended_at = now() WHERE tenant_id = %s AND suspended_at IS NULL", [tenant_id]
    )
