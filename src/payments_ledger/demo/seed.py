"""The demo tenants and users of the README; what exists already is left as it is."""

import asyncio
from dataclasses import dataclass

from uuid_utils.compat import uuid7

from payments_ledger.access.passwords import hash_password
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.tenants.queries import insert_user
from payments_ledger.tenants.use_cases import begin_tenant


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A user whose password everybody knows."""

    email: str
    password: str
    tenant_id: str
    role: str


# Two are those that the orders service uses in its own demo. scripts/smoke.sh has a tenant to itself, so that neither
# what it pays nor the policies of another tenant get into anybody's way.
DEMO_TENANTS = {
    "tenant_demo": "Demo",
    "00000000-0000-0000-0000-000000000002": "Demo of the orders service",
    "00000000-0000-0000-0000-000000000003": "Acme",
    "tenant_smoke": "Smoke test",
}
DEMO_PLAN = "pro"
DEMO_REGION = "region-a"
DEMO_USERS = (
    DemoUser("admin@local", "admin123", EVERY_TENANT, "admin"),
    DemoUser("ops@demo", "ops123", "tenant_demo", "ops"),
    DemoUser("finance@demo", "finance123", "tenant_demo", "finance"),
    DemoUser("sales@demo", "sales123", "tenant_demo", "sales"),
    DemoUser("smoke@demo", "smoke123", "tenant_smoke", "ops"),
)


async def seed(database_url: str) -> None:
    """Adds what is missing, as the schema's owner; can be repeated and started twice at once."""
    # Before the transaction: its locks, for which another start waits, are not held while hashes are made.
    password_hashes = [await asyncio.to_thread(hash_password, user.password) for user in DEMO_USERS]
    database = Database(database_url, role=None, pool_size_max=2)
    await database.open()
    try:
        async with database.transaction([EVERY_TENANT, *DEMO_TENANTS]) as conn:
            await add_tenant(conn, EVERY_TENANT, "Global administration")
            for tenant_id, name in DEMO_TENANTS.items():
                await add_tenant(conn, tenant_id, name)
            for user, password_hash in zip(DEMO_USERS, password_hashes, strict=True):
                await insert_user(
                    conn,
                    tenant_id=user.tenant_id,
                    user_id=uuid7(),
                    email=user.email,
                    password_hash=password_hash,
                    roles=[user.role],
                )
    finally:
        await database.close()


async def add_tenant(conn: Connection, tenant_id: str, name: str) -> None:
    """A tenant of the demonstration's plan and region, with all that a tenant begins with."""
    await begin_tenant(conn, tenant_id=tenant_id, name=name, plan=DEMO_PLAN, region=DEMO_REGION)
