"""The audit in the background: what is broken turns a metric, and what is repaired turns it back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from prometheus_client import REGISTRY

from payments_ledger.demo.seed import add_tenant
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.postgres.roles import auditor_role, runtime_role
from payments_ledger.schema.migrate import migrate
from payments_ledger.verify import watch as watching
from payments_ledger.verify.horizon import CLOCKS_APART, Horizon, find_horizon
from payments_ledger.verify.watch import AUDIT_LOCK, Watch
from tests import big_book
from tests.integration.books import confirm_a_payment, create_a_payment, settle_a_payment
from tests.integration.conftest import opened
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT = "watched"
WATCH_BOUNDS = BOUNDS | {"idempotency_ttl_seconds": 60}


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    """Books of our own: the metrics tell of all tenants, and other tests break theirs."""
    url = postgres.create_database("watched")
    migrate(url)

    async def add() -> None:
        async with opened(Database(url, role=None, pool_size_max=2)) as owner, owner.transaction([TENANT]) as conn:
            await add_tenant(conn, TENANT, "Watched")
            await insert_accounts(conn, TENANT, DEFAULT_ACCOUNTS)

    asyncio.run(add())
    return url


@pytest.fixture
async def books(url: str) -> AsyncIterator[Database]:
    async with opened(Database(url, role=runtime_role(url), pool_size_max=2)) as database:
        yield database


@pytest.fixture
async def watch(url: str) -> AsyncIterator[Watch]:
    watch = Watch(url, INVARIANTS, seconds=60, bounds=WATCH_BOUNDS)
    await watch.open()
    try:
        yield watch
    finally:
        await watch.close()


def tamper(url: str, statement: str) -> None:
    with psycopg.connect(driver_url(url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(statement.encode()).rowcount > 0


def broken() -> set[str]:
    holds = {invariant.name: sample("ledger_invariant_holds", invariant=invariant.name) for invariant in INVARIANTS}
    assert set(holds.values()) <= {0.0, 1.0}
    return {name for name, value in holds.items() if not value}


def first_id(instant: datetime) -> UUID:
    """The least UUIDv7 (RFC 9562) of the instant."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def sample(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    return -1 if value is None else value


def examined() -> dict[str, float]:
    return {
        invariant.name: sample("ledger_verify_examined_total", invariant=invariant.name) for invariant in INVARIANTS
    }


async def test_a_broken_row_turns_the_metric_and_a_repaired_one_turns_it_back(
    books: Database, watch: Watch, url: str
) -> None:
    payment = await settle_a_payment(books, TENANT)
    began = datetime.now(UTC).timestamp()
    assert await watch.step()
    assert broken() == set()
    assert sample("ledger_verify_last_run_timestamp_seconds") >= began
    of_payment = f"entry_id = (SELECT id FROM ledger_entries WHERE source_id = '{payment.id}')"
    tamper(url, f"UPDATE ledger_postings SET amount = amount + 1 WHERE {of_payment}")
    for _ in range(2):
        assert await watch.step()
        assert broken() == {"settled_payments_are_posted_once", "totals_are_the_fold_of_the_postings"}
    tamper(url, f"UPDATE ledger_postings SET amount = amount - 1 WHERE {of_payment}")
    assert await watch.step()
    assert broken() == set()


async def test_what_was_written_lately_is_looked_at_first(
    books: Database, watch: Watch, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ROTATION_SECONDS", -1)
    payment = await settle_a_payment(books, TENANT)
    tamper(url, f"UPDATE audit_log SET action = 'payment.fail' WHERE target = '{payment.id}' AND action LIKE '%settle'")
    tamper(url, f"UPDATE outbox_events SET headers = '{{}}' WHERE aggregate_id = '{payment.id}'")
    await watch.step()
    assert broken() == {"changes_are_audited", "audit_rows_have_their_payment", "events_match_their_payment"}
    tamper(url, f"UPDATE audit_log SET action = 'payment.settle' WHERE target = '{payment.id}' AND action LIKE '%fail'")
    tamper(
        url,
        f"UPDATE outbox_events SET headers = json_build_object('X-Tenant-Id', tenant_id) "
        f"WHERE aggregate_id = '{payment.id}'",
    )
    await watch.step()
    assert broken() == set()


async def test_a_payment_that_waits_too_long_is_found_when_its_time_is_over(
    books: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ROTATION_SECONDS", -1)
    payment = await confirm_a_payment(books, await create_a_payment(books, TENANT))
    impatient = Watch(url, INVARIANTS, seconds=60, bounds=WATCH_BOUNDS | {"authorized_seconds_max": 0})
    await impatient.open()
    await impatient.step()
    await impatient.close()
    assert broken() == {"nothing_waits_too_long"}
    tamper(url, f"DELETE FROM payment_intents WHERE id = '{payment.id}'")
    for table, column in (("outbox_events", "aggregate_id"), ("audit_log", "target")):
        tamper(url, f"DELETE FROM {table} WHERE {column} = '{payment.id}'")


async def test_the_rotation_comes_to_every_row_page_by_page(
    watch: Watch, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = await asyncio.to_thread(big_book.fill, url, payments=150, tenants=3)
    last = max(book.tenants)
    monkeypatch.setattr(watching, "PAGE_ROWS", 60)
    await watch.step()
    assert broken() == set()
    tamper(
        url,
        f"UPDATE payment_intents SET customer_ref = 'x' WHERE tenant_id = '{last}' AND id ="
        f" (SELECT id FROM payment_intents WHERE tenant_id = '{last}' ORDER BY id DESC LIMIT 1)",
    )
    shows_it = {
        "kept_answers_match_their_payment",
        "kept_batches_match_the_books",
        "events_match_their_payment",
    }
    # A page or a few at each step, from wherever the rotation stands.
    monkeypatch.setattr(watching, "ROTATION_SECONDS", 0.1)
    before = examined()
    for _ in range(200):
        await watch.step()
        if broken() >= shows_it:
            break
    assert broken() == shows_it
    assert all(after >= before[name] for name, after in examined().items())


async def test_of_two_workers_one_audits_at_a_time(watch: Watch, url: str) -> None:
    async with opened(Database(url, role=auditor_role(url), pool_size_max=1)) as other:
        async with other.transaction() as conn:
            locked = await conn.execute("SELECT pg_advisory_xact_lock(%s)", [AUDIT_LOCK])
            await locked.fetchone()
            assert not await watch.step()
        assert await watch.step()


async def test_the_horizon_is_where_the_kept_months_begin(owner: Database) -> None:
    async with owner.transaction() as conn:
        assert await find_horizon(conn) == Horizon()
        # In place of the real table, for this transaction: June was dropped, May is kept for an unpublished event.
        await conn.execute("CREATE TEMPORARY TABLE outbox_events (id uuid) PARTITION BY RANGE (id)")
        for month in (5, 7, 8):
            first = "MINVALUE" if month == 5 else f"'{first_id(datetime(2026, month, 1, tzinfo=UTC))}'"
            await conn.execute(
                f"CREATE TEMPORARY TABLE outbox_events_2026_0{month} PARTITION OF outbox_events"
                f" FOR VALUES FROM ({first}) TO ('{first_id(datetime(2026, month + 1, 1, tzinfo=UTC))}')".encode()
            )
        assert await find_horizon(conn) == Horizon(events_since=datetime(2026, 7, 1, tzinfo=UTC) + CLOCKS_APART)
        await conn.execute("DROP TABLE pg_temp.outbox_events")
