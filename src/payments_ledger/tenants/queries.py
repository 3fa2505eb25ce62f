"""The SQL of tenants."""

from payments_ledger.platform.postgres import Connection


async def tenant_exists(conn: Connection, tenant_id: str) -> bool:
    """Whether the tenant, one of those that the transaction named, exists."""
    cursor = await conn.execute("SELECT FROM tenants WHERE tenant_id = %s", [tenant_id])
    return await cursor.fetchone() is not None


async def insert_tenant(conn: Connection, *, tenant_id: str, name: str, plan: str, region: str) -> None:
    """Adds the tenant unless it exists."""
    await conn.execute(
        "INSERT INTO tenants (tenant_id, name, plan, region) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [tenant_id, name, plan, region],
    )
