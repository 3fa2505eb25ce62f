"""The gauges of the outbox: what waits in it, how long, and what was set aside."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from payments_ledger.delivery.gauges import measure_outbox
from payments_ledger.delivery.queries import Backlog, measure_backlog
from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role, runtime_role
from payments_ledger.schema.migrate import migrate
from tests.integration.books import create_a_payment
from tests.integration.conftest import opened
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT = "one"


@pytest.fixture
async def url(postgres: PostgresServer) -> str:
    """A database of its own: the backlog is of all tenants."""
    url = postgres.create_database("outbox_gauges")
    await asyncio.to_thread(migrate, url)
    async with opened(Database(url, role=None, pool_size_max=2)) as owner, owner.transaction([TENANT]) as conn:
        await add_tenant(conn, TENANT, TENANT)
        await insert_accounts(conn, TENANT, DEFAULT_ACCOUNTS)
    return url


@pytest.fixture
async def books(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=runtime_role(url), pool_size_max=4)) as database:
        yield database


@pytest.fixture
async def outbox(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=relay_role(url), pool_size_max=4)) as database:
        yield database


async def test_the_backlog_is_what_is_not_published_and_its_age_that_of_the_oldest(
    books: Database, outbox: Database
) -> None:
    async def backlog(limit: int = 100) -> Backlog:
        async with outbox.transaction() as conn:
            return await measure_backlog(conn, limit)

    assert await backlog() == Backlog(pending=0, failing=0, oldest_seconds=0, buried=0)
    for _ in range(3):
        await create_a_payment(books, "one")
    found = await backlog()
    assert (found.pending, found.buried) == (3, 0)
    assert 0 < found.oldest_seconds < 60
    assert (await backlog(limit=2)).pending == 2
    async with outbox.transaction() as conn:
        await conn.execute("UPDATE outbox_events SET attempts = 1 WHERE sequence = 1")
    assert (await backlog()).failing == 3
    async with outbox.transaction() as conn:
        await conn.execute(
            """
            UPDATE outbox_events SET buried_at = now()
            WHERE id = (SELECT id FROM outbox_events ORDER BY id LIMIT 1)
            """
        )
    found = await backlog()
    assert (found.pending, found.buried) == (2, 1)
    await measure_outbox(outbox)
    assert [REGISTRY.get_sample_value(f"ledger_outbox_{name}") for name in ("pending", "buried")] == [2, 1]
    assert 0 < (REGISTRY.get_sample_value("ledger_outbox_oldest_seconds") or 0) < 60
    async with outbox.transaction() as conn:
        await conn.execute("UPDATE outbox_events SET published_at = now() WHERE buried_at IS NULL")
    assert await backlog() == Backlog(pending=0, failing=0, oldest_seconds=0, buried=1)
