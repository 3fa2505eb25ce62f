"""The audit of the two times and of the fold by book date: each way to break them is found by the check for it."""

import psycopg
import pytest

from payments_ledger.ledger.reports.invariants import INVARIANTS as OURS
from payments_ledger.postgres.database import driver_url
from tests.integration.books import broken_checks
from tests.integration.ledger.journal import Journal

pytestmark = pytest.mark.anyio

BOOKED = "entries_are_booked_on_their_day"
TIMES = "postings_have_the_times_of_their_entry"
ACCOUNTED = "postings_booked_on_another_day_are_accounted_for"
FOLD = "shifted_totals_are_the_fold_of_the_postings"
OF_TRANSACTION = "entries_are_effective_as_their_transaction"

OURS_ALONE = "tenant_id = %(tenant)s"


@pytest.fixture
async def books(journal: Journal) -> Journal:
    """One transaction that is backdated, and one that is not."""
    await journal.account("BANK", "asset")
    await journal.account("WALLET")
    await journal.move("BANK", "WALLET", "100.00", effective_at="2026-03-10T12:00:00Z")
    await journal.move("BANK", "WALLET", "1.00")
    return journal


async def test_clean_books_pass(books: Journal, tenant: str, database_url: str) -> None:
    assert await broken_checks(database_url, tenant) == {}


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        ("UPDATE ledger_entries SET book_date = book_date + 1", {BOOKED, TIMES}),
        ("UPDATE ledger_entries SET book_date = NULL", {BOOKED, TIMES}),
        (
            "UPDATE ledger_entries SET effective_at = effective_at - interval '1 hour'",
            {TIMES, OF_TRANSACTION},
        ),
        ("UPDATE ledger_postings SET effective_at = NULL", {TIMES}),
        ("UPDATE ledger_postings SET book_date = book_date + 1", {TIMES, ACCOUNTED, FOLD}),
        ("DELETE FROM account_shifted_totals", {ACCOUNTED}),
        ("UPDATE account_shifted_totals SET debits = debits + 1", {FOLD}),
        ("UPDATE account_shifted_totals SET currency = 'EUR'", {ACCOUNTED, FOLD}),
        ("UPDATE tenants SET zone = 'Pacific/Kiritimati'", {BOOKED}),
    ],
)
async def test_each_way_to_break_them_is_found(
    books: Journal, tenant: str, database_url: str, statement: str, found_by: set[str]
) -> None:
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(f"{statement} WHERE {OURS_ALONE}".encode(), {"tenant": tenant}).rowcount > 0
    assert (await broken_checks(database_url, tenant)).keys() == found_by


def test_every_invariant_is_broken_by_some_case() -> None:
    assert {each.name for each in OURS} == {BOOKED, TIMES, ACCOUNTED, FOLD, OF_TRANSACTION}
