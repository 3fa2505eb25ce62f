"""The counts that the metrics show are always those of the payments."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

import psycopg
import pytest
from alembic import command
from prometheus_client import REGISTRY

from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.payments.gauges import measure_payments, sum_up_all_counts
from payments_ledger.payments.queries import FIRST_COUNT, count_payments, sum_up_counts
from payments_ledger.payments.use_cases import CancelPayment, cancel_payments
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.postgres.roles import relay_role, runtime_role
from payments_ledger.schema.migrate import migrate
from payments_ledger.telemetry.gauges import MEASURE_SECONDS, keep_measuring
from tests.integration.books import ORIGIN, confirm_a_payment, create_a_payment, settle_a_payment
from tests.integration.conftest import opened
from tests.integration.schema.books_of_before import payment_of_before, tenant_of_before
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANTS = ("one", "two")


@pytest.fixture
async def url(postgres: PostgresServer, request: pytest.FixtureRequest) -> str:
    """A database of its own: counts are over all tenants."""
    url = postgres.create_database(f"gauges_{abs(hash(request.node.name))}")
    await asyncio.to_thread(migrate, url)
    await add_tenants(url)
    return url


async def add_tenants(url: str) -> None:
    async with opened(Database(url, role=None, pool_size_max=2)) as owner, owner.transaction(TENANTS) as conn:
        for tenant in TENANTS:
            await add_tenant(conn, tenant, tenant)
            await insert_accounts(conn, tenant, DEFAULT_ACCOUNTS)


@pytest.fixture
async def books(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=runtime_role(url), pool_size_max=4)) as database:
        yield database


@pytest.fixture
async def outbox(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=relay_role(url), pool_size_max=4)) as database:
        yield database


async def counts(outbox: Database) -> dict[str, int]:
    async with outbox.transaction() as conn:
        return {count.status: count.payments for count in await count_payments(conn)}


async def rows_of_counts(outbox: Database) -> int:
    async with outbox.transaction() as conn:
        row = await (await conn.execute("SELECT count(*) FROM payment_counts")).fetchone()
    assert row is not None
    number: int = row[0]
    return number


async def sum_up(outbox: Database) -> None:
    async with outbox.transaction() as conn:
        await sum_up_counts(conn)


async def some_payments(books: Database) -> None:
    """Three CREATED, two AUTHORIZED, four SETTLED, one CANCELLED."""
    for tenant in TENANTS:
        await settle_a_payment(books, tenant)
        await settle_a_payment(books, tenant)
        await create_a_payment(books, tenant)
        await confirm_a_payment(books, await create_a_payment(books, tenant))
    await create_a_payment(books, "one")
    cancelled = await create_a_payment(books, "two")
    async with books.transaction(["two"]) as conn:
        await cancel_payments(conn, [CancelPayment("two", cancelled.id, None, ORIGIN)])


EXPECTED = {"CREATED": 3, "AUTHORIZED": 2, "SETTLED": 4, "CANCELLED": 1}


async def test_payments_are_counted_by_status_over_all_tenants_before_and_after_summing_up(
    books: Database, outbox: Database
) -> None:
    await some_payments(books)
    assert await counts(outbox) == EXPECTED
    before = await rows_of_counts(outbox)
    await sum_up(outbox)
    assert await counts(outbox) == EXPECTED
    after = await rows_of_counts(outbox)
    # A row for each tenant and status, and none for a moment since which nobody is AUTHORIZED any more.
    assert after < before
    assert after <= 9
    await sum_up(outbox)
    assert await rows_of_counts(outbox) == after


async def test_what_was_rolled_back_is_not_counted(books: Database, outbox: Database) -> None:
    class Changed(Exception):
        pass

    payment = await create_a_payment(books, "one")
    with contextlib.suppress(Changed):
        async with books.transaction(["one"]) as conn:
            await cancel_payments(conn, [CancelPayment("one", payment.id, None, ORIGIN)])
            raise Changed
    assert await counts(outbox) == {"CREATED": 1}


async def test_summing_up_while_payments_move_and_others_sum_up_loses_nothing(
    books: Database, outbox: Database
) -> None:
    done = asyncio.Event()

    async def keep_summing_up() -> None:
        while not done.is_set():
            await sum_up(outbox)

    async def settle_some(tenant: str) -> None:
        for _ in range(15):
            await settle_a_payment(books, tenant)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(keep_summing_up())
        await asyncio.gather(*(settle_some(tenant) for tenant in TENANTS))
        done.set()
    assert {status: number for status, number in (await counts(outbox)).items() if number} == {"SETTLED": 30}
    await sum_up(outbox)
    assert await rows_of_counts(outbox) == 2


def add_counts(url: str, number: int, tenants: int) -> None:
    """So many, as an hour of payments leaves behind without a worker: each moment of 10 s in each tenant is even.

    The two that are even share a second, so that no bin's edge comes between them, whatever the clock says.
    """
    with psycopg.connect(driver_url(url).replace("app:app@", "postgres@")) as conn:
        conn.execute(
            """
            INSERT INTO payment_counts (tenant_id, status, since, payments)
            SELECT 'tenant-' || n / 2 %% %(tenants)s, status, since, CASE n %% 2 WHEN 0 THEN 1 ELSE payments END
            FROM generate_series(0, %(number)s - 1) AS n
            CROSS JOIN LATERAL (
                VALUES ('SETTLED', NULL, 1),
                       ('AUTHORIZED', date_bin('10 s', now() - make_interval(secs => n / 2 * 2 %% 3600), 'epoch'), -1)
            ) AS its (status, since, payments)
            WHERE (n / 2 %% 4 = 0) = (status = 'SETTLED')
            """,
            {"number": number, "tenants": tenants},
        )


async def test_many_counts_are_summed_up_in_portions_of_any_size(url: str, outbox: Database) -> None:
    add_counts(url, 2000, tenants=7)
    expected = {status: number for status, number in (await counts(outbox)).items() if number}
    assert expected == {"SETTLED": 500}
    after = FIRST_COUNT
    for _ in range(2000 // 150 + 1):
        before = await rows_of_counts(outbox)
        async with outbox.transaction() as conn:
            after = await sum_up_counts(conn, after, limit=150)
        assert before - await rows_of_counts(outbox) <= 150
        assert {status: number for status, number in (await counts(outbox)).items() if number} == expected
        if after == FIRST_COUNT:
            break
    assert await rows_of_counts(outbox) < 2000 / 2
    # More than one portion of the whole.
    while await rows_of_counts(outbox) > 7:
        async with outbox.transaction() as conn:
            after = await sum_up_counts(conn, after, limit=300)
    assert {status: number for status, number in (await counts(outbox)).items() if number} == expected


# More than one statement can sum up within its 4 s.
MANY = 600_000


async def test_with_many_counts_the_gauges_stay_fresh_and_the_counts_become_fewer(url: str, outbox: Database) -> None:
    add_counts(url, MANY, tenants=50)
    began = time.time()
    running = asyncio.gather(keep_measuring("database", partial(measure_payments, outbox)), sum_up_all_counts(outbox))
    try:
        async with asyncio.timeout(60):
            while await rows_of_counts(outbox) > MANY * 0.9:
                await asyncio.sleep(1)
            while measured_at() < began + MEASURE_SECONDS:
                await asyncio.sleep(0.2)
        assert time.time() - measured_at() < 3 * MEASURE_SECONDS
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def measured_at() -> float:
    return REGISTRY.get_sample_value("ledger_gauges_timestamp_seconds", {"of": "database"}) or 0


async def test_the_oldest_authorized_payment_is_as_old_as_its_authorization(
    url: str, books: Database, outbox: Database
) -> None:
    async def oldest() -> float:
        async with outbox.transaction() as conn:
            return max((count.oldest_seconds for count in await count_payments(conn)), default=0.0)

    assert await oldest() == 0
    await settle_a_payment(books, "one")
    assert await oldest() == 0
    await confirm_a_payment(books, await create_a_payment(books, "two"))
    async with opened(Database(url, role=None, pool_size_max=2)) as owner, owner.transaction(TENANTS) as conn:
        await conn.execute("UPDATE payment_counts SET since = since - interval '1 hour' WHERE since IS NOT NULL")
    assert 3600 <= await oldest() < 3600 + 60


async def test_payments_of_before_are_counted_when_counting_begins(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database("counted_late")
    upgrade = command.upgrade
    with monkeypatch.context() as at_first:
        at_first.setattr(command, "upgrade", lambda config, _: upgrade(config, "0004"))
        await asyncio.to_thread(migrate, url)
    async with opened(Database(url, role=None, pool_size_max=1)) as owner:
        await tenant_of_before(owner, "one")
    async with opened(Database(url, role=runtime_role(url), pool_size_max=4)) as books:
        for status, number in EXPECTED.items():
            for _ in range(number):
                await payment_of_before(books, "one", status)
    await asyncio.to_thread(migrate, url)
    async with opened(Database(url, role=relay_role(url), pool_size_max=2)) as outbox:
        assert await counts(outbox) == EXPECTED
    with psycopg.connect(driver_url(url)) as conn:
        assert conn.execute("SELECT FROM payment_intents").fetchall() == []
