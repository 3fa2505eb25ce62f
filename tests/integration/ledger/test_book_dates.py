"""The two times of an entry: when it was recorded, when it was effective, and the day that it is booked on."""

from datetime import UTC, date, datetime
from uuid import uuid4

import psycopg
import pytest
from uuid_utils.compat import uuid7

from payments_ledger.errors import Invalid
from payments_ledger.ledger import queries
from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.ledger.reports.use_cases import balances_as_of
from payments_ledger.money import Money
from payments_ledger.postgres.database import Database
from payments_ledger.tenants.use_cases import ZONE_DEFAULT, begin_tenant

pytestmark = pytest.mark.anyio

EVENING = datetime(2026, 3, 1, 1, 30, tzinfo=UTC)


def entry(tenant_id: str, effective_at: datetime | None = None, kind: str = "settlement") -> Entry:
    posting = Posting(CASH, REVENUE, Money(100, "BRL"))
    return Entry(tenant_id, uuid7(), kind, uuid4(), "corr-test", (posting,), effective_at=effective_at)


async def post(database: Database, posted_at: datetime, *entries: Entry) -> None:
    async with database.transaction({each.tenant_id for each in entries}) as conn:
        await queries.insert_entries(conn, entries, posted_at)
        await queries.insert_postings(conn, entries, posted_at)


async def rows(database: Database, tenant_id: str, statement: str) -> list[tuple[object, ...]]:
    async with database.transaction([tenant_id]) as conn:
        cursor = await conn.execute(statement.encode())
        return await cursor.fetchall()


@pytest.fixture
async def tenant_in_brazil(owner: Database) -> str:
    tenant_id = f"tenant-{uuid4()}"
    async with owner.transaction([tenant_id]) as conn:
        await begin_tenant(conn, tenant_id=tenant_id, name="A shop", plan="pro", region="region-a")
    return tenant_id


async def test_what_is_recorded_in_the_evening_is_booked_on_the_day_of_the_tenants_zone(
    database: Database, tenant: str, tenant_in_brazil: str
) -> None:
    await post(database, EVENING, entry(tenant), entry(tenant_in_brazil))
    dated = "SELECT effective_at, book_date FROM ledger_postings"
    assert await rows(database, tenant, dated) == [(None, None)]
    assert await rows(database, tenant_in_brazil, dated) == [(None, date(2026, 2, 28))]
    assert await rows(database, tenant_in_brazil, dated.replace("postings", "entries")) == [(None, date(2026, 2, 28))]


async def test_only_what_is_booked_on_another_day_is_in_the_second_fold(database: Database, tenant: str) -> None:
    original = datetime(2026, 2, 27, 12, tzinfo=UTC)
    same_day = datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)
    await post(
        database, EVENING, entry(tenant), entry(tenant, original), entry(tenant, same_day), entry(tenant, original)
    )
    assert await rows(
        database, tenant, "SELECT account, book_date, day, debits, credits FROM account_shifted_totals ORDER BY account"
    ) == [(CASH, date(2026, 2, 27), date(2026, 3, 1), 200, 0), (REVENUE, date(2026, 2, 27), date(2026, 3, 1), 0, 200)]
    assert await rows(database, tenant, "SELECT debits FROM account_totals WHERE account = 'CASH'") == [(400,)]


@pytest.mark.parametrize(
    ("effective_at", "constraint"),
    [
        (EVENING.replace(minute=31), "nothing_is_dated_ahead"),
        (datetime(1899, 12, 31, 23, 59, tzinfo=UTC), "every_calendar_has_its_day"),
    ],
)
async def test_postgresql_refuses_an_entry_that_is_dated_ahead_or_out_of_mind(
    database: Database, tenant: str, effective_at: datetime, constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        await post(database, EVENING, entry(tenant, effective_at))


async def test_a_new_tenant_is_in_brazil_unless_it_says_otherwise(database: Database, tenant_in_brazil: str) -> None:
    assert await rows(database, tenant_in_brazil, "SELECT zone FROM tenants") == [(ZONE_DEFAULT,)]


@pytest.mark.parametrize("zone", ["Mars/Olympus", "localtime", "", "UTC+3"])
async def test_a_zone_that_the_tz_database_does_not_have_is_refused(owner: Database, zone: str) -> None:
    tenant_id = f"tenant-{uuid4()}"
    with pytest.raises(Invalid) as refusal:
        async with owner.transaction([tenant_id]) as conn:
            await begin_tenant(conn, tenant_id=tenant_id, name="x", plan="x", region="x", zone=zone)
    assert [fault.place for fault in refusal.value.faults] == ["zone"]


async def test_a_zone_never_changes(owner: Database, tenant: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="zone never changes"):
        async with owner.transaction([tenant]) as conn:
            await conn.execute("UPDATE tenants SET zone = 'Asia/Tokyo' WHERE tenant_id = %s", [tenant])


async def test_what_a_process_of_before_posts_is_dated_by_its_recording(database: Database, tenant: str) -> None:
    async with database.transaction([tenant]) as conn:
        await conn.execute(
            """
            WITH entry AS (
                INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id)
                VALUES (%s, %s, %s, 'settlement', %s, 'corr-test')
                RETURNING *
            ), posting AS (
                INSERT INTO ledger_postings
                    (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
                SELECT tenant_id, posted_at, id, 1, 'CASH', 'REVENUE', 'BRL', 100 FROM entry
                RETURNING *
            )
            INSERT INTO account_totals (tenant_id, account, currency, day, debits, credits)
            SELECT tenant_id, account, currency, (posted_at AT TIME ZONE 'UTC')::date, debits, credits
            FROM posting
            CROSS JOIN LATERAL (VALUES ('CASH', 100, 0), ('REVENUE', 0, 100)) AS side (account, debits, credits)
            """,
            [tenant, EVENING, uuid7(), uuid4()],
        )
        cash = await balances_as_of(conn, tenant, CASH, as_of=date(2026, 3, 1), known_at=None)
        earlier = await balances_as_of(conn, tenant, CASH, as_of=date(2026, 2, 28), known_at=EVENING)
    assert [each.balance for each in (*cash, *earlier)] == [100, 0]
