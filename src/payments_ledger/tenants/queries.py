"""The SQL of tenants."""

from payments_ledger.platform.postgres import Connection


async def insert_tenant(conn: Connection, *, tenant_id: str, name: str, plan: str, region: str) -> bool:
    """Adds the tenant unless it exists; whether it was added."""
    cursor = await conn.execute(
        "INSERT INTO tenants (tenant_id, name, plan, region) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [tenant_id, name, plan, region],
    )
    return cursor.rowcount == 1
