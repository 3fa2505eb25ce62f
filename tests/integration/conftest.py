"""A migrated database, and for each test a tenant of its own, so that tests need not clean up and never meet."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from payments_ledger.access.policy import ROLE_PERMISSIONS
from payments_ledger.access.resources import Resources
from payments_ledger.access.tokens import EVERY_TENANT, Identity, Tokens
from payments_ledger.api import create_app
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.postgres.roles import runtime_role
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.schema.migrate import migrate
from tests.services import PostgresServer

SECRET = "a secret of more than thirty-two bytes"
UNLIMITED = 1_000_000


@pytest.fixture(scope="session")
def database_url(postgres: PostgresServer) -> str:
    url = postgres.create_database("integration")
    migrate(url)
    asyncio.run(_add_global_tenant(url))
    return url


async def _add_global_tenant(url: str) -> None:
    async with opened(Database(url, role=None, pool_size_max=2)) as owner, owner.transaction([EVERY_TENANT]) as conn:
        await add_tenant(conn, EVERY_TENANT, "Global administration")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """As the processes use it: under the runtime role."""
    async with opened(Database(database_url, role=runtime_role(database_url), pool_size_max=8)) as database:
        yield database


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Database]:
    """As the schema's owner, who is held by row-level security too."""
    async with opened(Database(database_url, role=None, pool_size_max=4)) as database:
        yield database


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Database]:
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def new_tenant(owner: Database) -> Callable[[], Awaitable[str]]:
    async def make() -> str:
        tenant_id = f"tenant-{uuid4()}"
        async with owner.transaction([tenant_id]) as conn:
            await add_tenant(conn, tenant_id, "A tenant of one test")
            await insert_accounts(conn, tenant_id, DEFAULT_ACCOUNTS)
        return tenant_id

    return make


@pytest.fixture
async def tenant(new_tenant: Callable[[], Awaitable[str]]) -> str:
    return await new_tenant()


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=MEMORY_URL,
        rabbitmq_url=MEMORY_URL,
        jwt_secret=SecretStr(SECRET),
        rate_limit_write_per_min=UNLIMITED,
        rate_limit_read_per_min=UNLIMITED,
        login_rate_limit_per_min=UNLIMITED,
    )


@dataclass(frozen=True)
class Api:
    """The application in this process, and clients who call it."""

    client: httpx.AsyncClient
    tokens: Tokens
    commands: GroupCommit
    database_url: str

    def headers(self, tenant_id: str, *, role: str = "ops", home: str | None = None) -> dict[str, str]:
        """Of a fresh user of the tenant (or of `home`) with the role, acting for the tenant."""
        user_id = self.add_user(home or tenant_id, role)
        identity = Identity(user_id, home or tenant_id, (role,), frozenset(ROLE_PERMISSIONS[role]), "pro", "region-a")
        return {"Authorization": f"Bearer {self.tokens.issue(identity)}", "X-Tenant-Id": tenant_id}

    def add_user(self, tenant_id: str, role: str) -> str:
        """The id of a new user, who has no password."""
        user_id = str(uuid4())
        # Not awaited, so that making a request's headers need not be.
        with psycopg.connect(driver_url(self.database_url)) as conn:
            conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [tenant_id])
            conn.execute(
                "INSERT INTO users (tenant_id, id, email, password_hash) VALUES (%s, %s, %s, 'none')",
                [tenant_id, user_id, f"{user_id}@test"],
            )
            conn.execute("INSERT INTO user_roles VALUES (%s, %s, %s)", [tenant_id, user_id, role])
        return user_id


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with serving(settings) as api:
        yield api


@pytest.fixture
async def other_process(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A second API process, as far as memory goes: it hears of changes only from the database."""
    async with serving(settings) as api:
        yield api.client


@asynccontextmanager
async def serving(settings: Settings, *, address: str = "127.0.0.1") -> AsyncIterator[Api]:
    """An application with these settings, and a client who calls it from the address."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        resources: Resources = app.state.resources
        yield Api(client, resources.tokens, resources.commands, settings.database_url)
