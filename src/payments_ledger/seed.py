"""The demo tenants and users of the README; what exists already is left as it is."""

import asyncio
from dataclasses import dataclass

from uuid_utils.compat import uuid7

from payments_ledger.auth.passwords import hash_password
from payments_ledger.auth.policy import DEFAULT_POLICIES, ROLE_PERMISSIONS
from payments_ledger.auth.queries import find_user, insert_roles, insert_user, put_policies
from payments_ledger.auth.tokens import EVERY_TENANT
from payments_ledger.ledger.postings import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.platform.postgres import Connection, Database
from payments_ledger.tenants.queries import insert_tenant


@dataclass(frozen=True, slots=True)
class DemoUser:
    email: str
    password: str
    tenant_id: str
    role: str


# The second tenant is the one that the orders service uses in its own demo.
DEMO_TENANTS = {"tenant_demo": "Demo", "00000000-0000-0000-0000-000000000002": "Demo of the orders service"}
DEMO_PLAN = "pro"
DEMO_REGION = "region-a"
DEMO_USERS = (
    DemoUser("admin@local", "admin123", EVERY_TENANT, "admin"),
    DemoUser("ops@demo", "ops123", "tenant_demo", "ops"),
    DemoUser("sales@demo", "sales123", "tenant_demo", "sales"),
)


async def seed(database_url: str) -> None:
    """Adds what is missing, as the schema's owner; can be repeated and started twice at once."""
    database = Database(database_url, role=None, pool_size_max=2)
    await database.open()
    try:
        async with database.transaction([EVERY_TENANT, *DEMO_TENANTS]) as conn:
            await add_tenant(conn, EVERY_TENANT, "Global administration")
            for tenant_id, name in DEMO_TENANTS.items():
                await add_tenant(conn, tenant_id, name)
                await insert_accounts(conn, tenant_id, DEFAULT_ACCOUNTS)
            for user in DEMO_USERS:
                await _add_user(conn, user)
    finally:
        await database.close()


async def add_tenant(conn: Connection, tenant_id: str, name: str) -> None:
    """A tenant with the roles and policies that every tenant begins with; one that exists keeps its own policies."""
    is_new = await insert_tenant(conn, tenant_id=tenant_id, name=name, plan=DEMO_PLAN, region=DEMO_REGION)
    await insert_roles(conn, tenant_id, ROLE_PERMISSIONS)
    if is_new:
        await put_policies(conn, tenant_id, DEFAULT_POLICIES)


async def _add_user(conn: Connection, user: DemoUser) -> None:
    if await find_user(conn, user.tenant_id, user.email):
        return
    password_hash = await asyncio.to_thread(hash_password, user.password)
    await insert_user(
        conn,
        tenant_id=user.tenant_id,
        user_id=uuid7(),
        email=user.email,
        password_hash=password_hash,
        role=user.role,
    )
