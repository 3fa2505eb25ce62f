"""Months are made ahead and dropped when they are old: whole, and never with an event that somebody still waits for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from uuid_utils.compat import uuid7

import payments_ledger.schema.retention as retaining
from payments_ledger.commit.events import Event, defer_events
from payments_ledger.delivery.queries import claim_due_events, mark_published
from payments_ledger.demo.seed import add_tenant
from payments_ledger.errors import TooBusy
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Connection, Database, driver_url
from payments_ledger.postgres.roles import auditor_role, relay_role, runtime_role
from payments_ledger.schema.migrate import migrate
from payments_ledger.schema.retention import AUDIT_LOG, OUTBOX, RETENTION_LOCK, Retention
from payments_ledger.verify.audit import audit
from payments_ledger.verify.horizon import CLOCKS_APART, find_horizon
from tests.integration.books import ORIGIN, settle_a_payment
from tests.integration.conftest import opened
from tests.integration.schema.books_of_before import payment_of_before, tenant_of_before
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT = "kept"
DAYS = 7

type Step = Callable[..., Awaitable[None]]

_numbers = count()


async def add_the_tenant(url: str) -> None:
    async with opened(Database(url, role=None, pool_size_max=1)) as owner, owner.transaction([TENANT]) as conn:
        await add_tenant(conn, TENANT, "Kept")
        await insert_accounts(conn, TENANT, DEFAULT_ACCOUNTS)


@pytest.fixture
async def url(postgres: PostgresServer) -> str:
    """A database for each test: what one drops is gone for all."""
    url = postgres.create_database(f"retained_{next(_numbers)}")
    await asyncio.to_thread(migrate, url)
    await add_the_tenant(url)
    return url


@pytest.fixture
async def books(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=runtime_role(url), pool_size_max=2)) as database:
        yield database


@pytest.fixture
async def owner(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=None, pool_size_max=2)) as database:
        yield database


@pytest.fixture
def step(url: str, owner: Database, monkeypatch: pytest.MonkeyPatch) -> Step:
    """A step at the moment when this month has just become old enough, or so many days earlier or later."""

    async def run(*, days_off: int = 0, audit_days: int = DAYS) -> None:
        [_, _, ends] = (await months(owner, OUTBOX))[0]

        async def then(_: object) -> datetime:
            moment: datetime = ends + timedelta(days=DAYS + days_off)
            return moment

        retention = Retention(url, outbox_days=DAYS, audit_days=audit_days)
        with monkeypatch.context() as at_that_time:
            at_that_time.setattr(retaining, "transaction_time", then)
            await retention.open()
            try:
                await retention.step()
            finally:
                await retention.close()

    return run


async def rows(database: Database, statement: str, *tenants: str) -> list[Any]:
    async with database.transaction(tenants) as conn:
        return await (await conn.execute(statement.encode())).fetchall()


async def months(owner: Database, table: str) -> list[Any]:
    return await rows(owner, f"SELECT partition, starts::text, ends FROM months_of('{table}') ORDER BY ends")


async def publish_all(url: str) -> None:
    async with opened(Database(url, role=relay_role(url), pool_size_max=1)) as relay, relay.transaction() as conn:
        await conn.execute("UPDATE outbox_events SET published_at = now()")


async def broken_checks(url: str) -> list[str]:
    return [result.invariant.name async for result in audit(url, INVARIANTS, bounds=BOUNDS) if not result.ok]


async def test_a_new_schema_has_this_month_which_takes_in_all_before_and_the_next(owner: Database) -> None:
    this_month = datetime.now(UTC)
    for table in (OUTBOX, AUDIT_LOG):
        found = await months(owner, table)
        assert len(found) == 2
        assert found[0][0] == f"{table}_{this_month:%Y_%m}"
        assert [starts for _, starts, _ in found] == ["-infinity", f"{found[0][2]:%Y-%m-%d} 00:00:00+00"]


async def test_months_are_made_as_time_goes_on(url: str, owner: Database, step: Step) -> None:
    async with owner.transaction() as conn:
        await conn.execute(f"DROP TABLE {(await months(owner, OUTBOX))[-1][0]}".encode())
    await step(days_off=-1)
    assert len(await months(owner, OUTBOX)) == 2
    assert await unguarded(url) == []


async def test_a_month_that_is_old_is_dropped_whole_and_the_books_still_hold(
    url: str, books: Database, owner: Database, step: Step
) -> None:
    payment = await settle_a_payment(books, TENANT, idempotency_key="k")
    await publish_all(url)
    [(month, _, ends), *_] = await months(owner, OUTBOX)
    await step(days_off=-1)
    assert (await months(owner, OUTBOX))[0][0] == month
    await step()
    for table in (OUTBOX, AUDIT_LOG):
        assert len(await months(owner, table)) == 1
        assert await rows(books, f"SELECT FROM {table}", TENANT) == []
    assert await rows(books, "SELECT status FROM payment_intents", TENANT) == [("SETTLED",)]
    assert len(await rows(books, "SELECT FROM ledger_postings", TENANT)) == 1
    async with opened(Database(url, role=auditor_role(url), pool_size_max=1)) as auditor, auditor.transaction() as conn:
        horizon = await find_horizon(conn)
    assert horizon.events_since == horizon.audit_since == ends + CLOCKS_APART
    assert payment.created_at < ends
    assert await broken_checks(url) == []


async def test_the_audit_log_is_kept_for_ever_unless_somebody_says_otherwise(
    url: str, books: Database, owner: Database, step: Step
) -> None:
    await settle_a_payment(books, TENANT)
    await publish_all(url)
    await step(audit_days=0)
    assert len(await months(owner, OUTBOX)) == 1
    assert len(await rows(books, "SELECT FROM audit_log", TENANT)) == 3
    assert await broken_checks(url) == []


@pytest.mark.parametrize("state", ["due", "buried"])
async def test_a_month_with_an_event_that_was_never_published_is_kept(
    url: str, books: Database, owner: Database, step: Step, state: str
) -> None:
    await settle_a_payment(books, TENANT)
    await publish_all(url)
    async with opened(Database(url, role=relay_role(url), pool_size_max=1)) as relay, relay.transaction() as conn:
        buried = "now()" if state == "buried" else "NULL"
        await conn.execute(
            f"UPDATE outbox_events SET published_at = NULL, buried_at = {buried} WHERE sequence = 3".encode()
        )
    await step()
    assert len(await months(owner, OUTBOX)) == 2
    assert len(await rows(books, "SELECT FROM outbox_events", TENANT)) == 3
    await publish_all(url)
    await step()
    assert await rows(books, "SELECT FROM outbox_events", TENANT) == []


async def test_a_late_event_of_a_payment_whose_month_is_gone_is_kept_as_long_as_others(
    url: str, books: Database, owner: Database, step: Step
) -> None:
    payment = await settle_a_payment(books, TENANT)
    await publish_all(url)
    await step()
    late = Event(TENANT, uuid7(), "payment.refunded", payment.id, 4, "{}", ORIGIN.trace)
    async with books.transaction([TENANT]) as conn:
        defer_events(conn, [late])
    [(where,)] = await rows(books, "SELECT tableoid::regclass::text FROM outbox_events", TENANT)
    assert where == "outbox_events_rest"
    # Older than its age allows, but never published.
    await step()
    assert len(await rows(books, "SELECT FROM outbox_events", TENANT)) == 1
    await publish_all(url)
    await step()
    assert await rows(books, "SELECT FROM outbox_events", TENANT) == []


async def test_rows_that_came_before_their_month_was_made_move_into_it(books: Database, owner: Database) -> None:
    [*_, (_, _, ends)] = await months(owner, OUTBOX)
    early = UUID(int=int(ends.timestamp() * 1000) << 80)
    async with books.transaction([TENANT]) as conn:
        defer_events(conn, [Event(TENANT, uuid7(), "payment.settled", early, 1, "{}", ORIGIN.trace)])
    where = "SELECT tableoid::regclass::text FROM outbox_events"
    assert await rows(books, where, TENANT) == [("outbox_events_rest",)]
    async with owner.transaction() as conn:
        await conn.execute("SELECT make_month(%s, %s)", [OUTBOX, ends.date()])
    assert await rows(books, where, TENANT) == [(f"outbox_events_{ends:%Y_%m}",)]


async def put_into_rest(url: str, table: str, month: datetime, number: int) -> None:
    """So many rows of that month, and a tenth as many of an earlier one, all of a hundred tenants."""
    key, other = ("id", "target") if table == AUDIT_LOG else ("aggregate_id", "id")
    columns = {
        AUDIT_LOG: "at, principal, action, correlation_id, detail",
        OUTBOX: "created_at, event_type, sequence, payload, headers",
    }
    values = {
        AUDIT_LOG: "%(month)s, 'p', 'a', 'c', '{}'",
        OUTBOX: "%(month)s, 'payment.settled', 1, '{}', json_build_object('X-Correlation-Id', n)",
    }
    with psycopg.connect(superuser(url)) as conn:
        conn.execute(
            f"""
            INSERT INTO {table} (tenant_id, {key}, {other}, {columns[table]})
            SELECT 'rest-' || n %% 100,
                   (left(first_id_of(month)::text, 13) || '-7' || right(gen_random_uuid()::text, 21))::uuid,
                   gen_random_uuid(), {values[table]}
            FROM generate_series(1, %(number)s * 11 / 10) AS n
            CROSS JOIN LATERAL (SELECT CASE WHEN n <= %(number)s THEN %(month)s::timestamptz
                                            ELSE '2500-01-01' END) AS its (month)
            """.encode(),
            {"month": month, "number": number},
        )


def superuser(url: str) -> str:
    return driver_url(url).replace("app:app@", "postgres@")


async def checksum(url: str, table: str) -> Any:
    with psycopg.connect(superuser(url)) as conn:
        return conn.execute(f"SELECT count(*), sum(hashtext({table}::text)::numeric) FROM {table}".encode()).fetchone()


@pytest.mark.parametrize("table", [OUTBOX, AUDIT_LOG])
async def test_a_month_is_divided_out_of_the_rest_in_portions_while_everybody_works_on(
    url: str, books: Database, owner: Database, step: Step, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(retaining, "PORTION_BLOCKS", 10)
    [*_, (late, _, ends)] = await months(owner, table)
    async with owner.transaction() as conn:
        await conn.execute(f"DROP TABLE {late}".encode())
    await put_into_rest(url, table, ends - timedelta(days=20), 5000)
    before = await checksum(url, table)
    # What comes, and what changes, between one portion and the next.
    written = 0
    original = Retention._turn

    @asynccontextmanager
    async def turn(self: Retention) -> AsyncIterator[Connection]:
        nonlocal written
        async with original(self) as conn:
            yield conn
        if await is_divided(url, table):
            await put_into_rest(url, table, ends - timedelta(days=10), 10)
            written += 11
            if table == OUTBOX:
                await publish_some(url)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Retention, "_turn", turn)
        await step(days_off=-1)
    assert written > 50
    assert [name for name, *_ in await months(owner, table)][-1] == late
    after = await checksum(url, table)
    assert after[0] == before[0] + written
    with psycopg.connect(superuser(url)) as direct:
        grouped = direct.execute(f"SELECT tableoid::regclass::text, count(*) FROM {table} GROUP BY 1".encode())
        where: dict[str, int] = dict(grouped.fetchall())
        assert where[late] == 5000 + 10 * (written // 11)
        assert where[f"{table}_rest"] == 500 + written // 11
        if table == OUTBOX:
            published = direct.execute("SELECT FROM outbox_events WHERE published_at IS NOT NULL").rowcount
            assert published == 20 * (written // 11)
    assert await unguarded(url) == []


async def publish_some(url: str) -> None:
    """As a relay does: twenty events, wherever they lie."""
    async with opened(Database(url, role=relay_role(url), pool_size_max=1)) as relay, relay.transaction() as conn:
        await mark_published(conn, (await claim_due_events(conn, 200))[::10])


async def is_divided(url: str, table: str) -> bool:
    with psycopg.connect(superuser(url)) as conn:
        return conn.execute("SELECT divided_month(%s) IS NOT NULL", [table]).fetchone() == (True,)


async def unguarded(url: str) -> list[Any]:
    """Partitions without forced row-level security or without the two triggers that each has."""
    with psycopg.connect(superuser(url)) as conn:
        return conn.execute(
            """
            SELECT relname, array_agg(tgname)
            FROM pg_inherits
            JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r'
            LEFT JOIN pg_trigger ON tgrelid = inhrelid
            GROUP BY pg_class.oid HAVING NOT (relrowsecurity AND relforcerowsecurity) OR count(tgname) <> 2
            """
        ).fetchall()


async def test_a_division_that_was_left_half_done_is_taken_up_or_begun_anew(
    url: str, owner: Database, step: Step
) -> None:
    [(this, _, _), (late, _, ends)] = await months(owner, OUTBOX)
    async with owner.transaction() as conn:
        await conn.execute(f"DROP TABLE {late}".encode())
    await put_into_rest(url, OUTBOX, ends - timedelta(days=20), 100)
    before = await checksum(url, OUTBOX)
    for month in ("2400-01-01", None, f"{ends - timedelta(days=20):%Y-%m-01}"):
        async with owner.transaction() as conn:
            await conn.execute("SELECT begin_division(%s, %s)", [OUTBOX, month])
    await step(days_off=-1)
    assert [name for name, *_ in await months(owner, OUTBOX)] == [this, late]
    assert await checksum(url, OUTBOX) == before
    assert await rows(owner, "SELECT relname FROM pg_class WHERE relname ~ '(2400|next)' AND relkind = 'r'") == []
    assert await unguarded(url) == []


async def test_months_that_nobody_made_in_time_are_made_later(owner: Database, step: Step) -> None:
    async with owner.transaction() as conn:
        for name, *_ in await months(owner, AUDIT_LOG):
            await conn.execute(f"DROP TABLE {name}".encode())
        await conn.execute("SELECT make_month(%s, %s)", [AUDIT_LOG, "2026-01-01"])
    await step(days_off=-1, audit_days=0)
    made = [name for name, *_ in await months(owner, AUDIT_LOG)]
    assert made[:3] == ["audit_log_2026_01", "audit_log_2026_02", "audit_log_2026_03"]
    assert len(made) == len(set(made)) > 3


async def test_of_two_workers_one_is_at_it(url: str, books: Database, owner: Database, step: Step) -> None:
    await settle_a_payment(books, TENANT)
    await publish_all(url)
    async with owner.transaction() as conn:
        await (await conn.execute("SELECT pg_advisory_xact_lock(%s)", [RETENTION_LOCK])).fetchall()
        await step()
        assert len(await months(owner, OUTBOX)) == 2
    await step()
    assert len(await months(owner, OUTBOX)) == 1


async def test_a_table_that_is_in_use_is_left_until_later_and_nothing_is_half_done(
    url: str, books: Database, owner: Database, step: Step
) -> None:
    await settle_a_payment(books, TENANT)
    await publish_all(url)
    async with books.transaction([TENANT]) as conn:
        await (await conn.execute("SELECT FROM outbox_events")).fetchall()
        with pytest.raises(TooBusy):
            await step()
    assert len(await months(owner, OUTBOX)) == 2
    assert len(await rows(books, "SELECT FROM outbox_events", TENANT)) == 3


async def test_what_was_there_before_is_in_the_first_month(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database("undivided")
    upgrade = command.upgrade
    with monkeypatch.context() as at_first:
        at_first.setattr(command, "upgrade", lambda config, _: upgrade(config, "0010"))
        await asyncio.to_thread(migrate, url)
    async with opened(Database(url, role=None, pool_size_max=1)) as owner:
        await tenant_of_before(owner, TENANT)
    async with opened(Database(url, role=runtime_role(url), pool_size_max=1)) as books:
        await payment_of_before(books, TENANT)
        before = {
            table: await rows(
                books, f"SELECT (to_jsonb({table}) - 'written_by')::text FROM {table} ORDER BY id", TENANT
            )
            for table in (OUTBOX, AUDIT_LOG)
        }
        await asyncio.to_thread(migrate, url)
        for table, expected in before.items():
            assert len(expected) == 3
            assert (
                await rows(books, f"SELECT (to_jsonb({table}) - 'written_by')::text FROM {table} ORDER BY id", TENANT)
                == expected
            )
    assert await broken_checks(url) == []
