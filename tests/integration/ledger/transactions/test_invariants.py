"""The audit of the ledger: clean books pass, and each way to break them is found by the check made for it."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.transactions.invariants import INVARIANTS as OURS
from payments_ledger.postgres.database import driver_url
from payments_ledger.verify.audit import audit
from tests.integration.books import broken_checks
from tests.integration.ledger.journal import ACCOUNTS, Journal

pytestmark = pytest.mark.anyio

LIMITS = "balances_are_within_their_limits"
SUMS = "balances_are_the_sums_of_the_books"
PENDING = "pending_sums_are_those_of_the_holds"
KEPT = "holds_are_kept_in_balances"
IN_TIME = "holds_end_in_time"
POSTED_ONCE = "transactions_are_posted_once"
OF_ENTRY = "entries_have_their_transaction"
MIRRORED = "reversals_mirror_their_first"
LISTED = "transactions_are_listed_under_their_accounts"
TOLD = "transactions_are_told_without_a_gap"
AUDITED = "transactions_are_audited"
EVENTS = "transaction_events_match_their_transaction"
AUDIT_ROWS = "transaction_audit_rows_have_their_transaction"
CLOSED = "closed_accounts_are_empty"


@pytest.fixture
async def books(journal: Journal) -> Journal:
    """Every status of a transaction, limited balances, and a closed account."""
    await journal.account("BANK", "asset")
    await journal.account("OLD")
    await journal.move("BANK", "OLD", "1.00")
    await journal.move("OLD", "BANK", "1.00")
    await journal.post(f"{ACCOUNTS}/OLD/close")
    await journal.wallet("A", "0.00", "500.00")
    await journal.wallet("B")
    await journal.move("BANK", "A", "100.00", reference="first")
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    await journal.hold("A", "B", "2.00", reference="expired", expires_at=soon)
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await journal.hold("A", "B", "30.00", reference="held", expires_at=later)
    await journal.hold("A", "CASH", "3.00", reference="forever")
    await journal.end(await journal.hold("A", "B", "4.00", reference="voided"), "void")
    await journal.end(await journal.hold("A", "B", "5.00", reference="ended"), "post", {"amounts": ["2.50"]})
    second = await journal.move("BANK", "A", "1.00", reference="second")
    await journal.end(second, "reverse", {"effective_at": "original"})
    await journal.end(second, "notes", {"text": "a note"})
    await asyncio.sleep(0.3)
    # Ends what has expired.
    await journal.move("BANK", "A", "1.00", reference="last")
    return journal


def tamper(url: str, tenant: str, statement: str) -> None:
    """As somebody with a superuser's power could: past triggers, foreign keys and row-level security."""
    with psycopg.connect(driver_url(url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        checks = conn.execute(
            """
            SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = 'account_balances'::regclass AND conname LIKE 'no_balance_is_%'
            """
        ).fetchall()
        for name, _ in checks:
            conn.execute(f"ALTER TABLE account_balances DROP CONSTRAINT {name}".encode())
        assert conn.execute(statement.encode(), {"tenant": tenant}).rowcount > 0
        for name, definition in checks:
            as_before = f"{definition.removesuffix(' NOT VALID')} NOT VALID"
            conn.execute(f"ALTER TABLE account_balances ADD CONSTRAINT {name} {as_before}".encode())


async def test_clean_books_pass_and_everything_was_looked_at(books: Journal, database_url: str, tenant: str) -> None:
    assert await broken_checks(database_url, tenant) == {}
    results = [result async for result in audit(database_url, INVARIANTS, tenant_id=tenant, bounds=BOUNDS)]
    examined = {result.invariant.name: result.examined for result in results}
    assert all(examined[invariant.name] for invariant in OURS)


OF_TENANT = "tenant_id = %(tenant)s"


def of(reference: str) -> str:
    return f"{OF_TENANT} AND id = (SELECT id FROM ledger_transactions WHERE {OF_TENANT} AND reference = '{reference}')"


def with_key(column: str, reference: str) -> str:
    return of(reference).replace(" AND id =", f" AND {column} =")


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        (
            f"UPDATE account_balances SET balance_min = 10000 WHERE {OF_TENANT} AND account = 'A'",
            {LIMITS},
        ),
        (f"UPDATE account_balances SET balance_max = 100 WHERE {OF_TENANT} AND account = 'A'", {LIMITS}),
        (f"UPDATE account_balances SET credits = credits + 1 WHERE {OF_TENANT} AND account = 'A'", {SUMS}),
        (
            f"""
            UPDATE account_balances SET normal_side = 'credit', pending_credits = pending_credits + 1
            WHERE {OF_TENANT} AND account = 'B'
            """,
            {PENDING},
        ),
        (f"UPDATE account_balances SET pending_debits = 0 WHERE {OF_TENANT} AND account = 'A'", {PENDING}),
        (f"DELETE FROM account_balances WHERE {OF_TENANT} AND account = 'B'", {KEPT}),
        (
            f"DELETE FROM ledger_hold_postings WHERE {with_key('transaction_id', 'held')}",
            {KEPT, PENDING},
        ),
        (
            f"""
            UPDATE ledger_transactions SET recorded_at = now() - interval '2 days',
                expires_at = now() - interval '1 day', effective_at = now() - interval '2 days' WHERE {of("held")}
            """,
            {IN_TIME, LISTED},
        ),
        (
            f"DELETE FROM ledger_postings WHERE {with_key('entry_id', 'first')}",
            {"entries_have_postings", "totals_are_the_fold_of_the_postings"},
        ),
        (
            f"DELETE FROM ledger_entries WHERE {with_key('id', 'first')}",
            {POSTED_ONCE, "postings_are_accounted_for"},
        ),
        (f"UPDATE ledger_entries SET kind = 'reversal' WHERE {with_key('id', 'first')}", {POSTED_ONCE, OF_ENTRY}),
        (
            f"UPDATE ledger_postings SET amount = amount + 1000 WHERE {with_key('entry_id', 'ended')}",
            {POSTED_ONCE, "totals_are_the_fold_of_the_postings"},
        ),
        (
            f"UPDATE ledger_postings SET amount = amount + 1 WHERE {with_key('entry_id', 'second')}",
            {MIRRORED, "totals_are_the_fold_of_the_postings"},
        ),
        (
            f"DELETE FROM ledger_transactions WHERE {of('last')}",
            {OF_ENTRY, EVENTS, AUDIT_ROWS},
        ),
        (f"DELETE FROM ledger_transaction_accounts WHERE {with_key('transaction_id', 'first')}", {LISTED}),
        (f"DELETE FROM outbox_events WHERE {with_key('aggregate_id', 'first')}", {TOLD}),
        (
            f"""
            UPDATE outbox_events SET event_type = 'ledger.transaction.voided'
            WHERE {with_key("aggregate_id", "first")}
            """,
            {TOLD},
        ),
        (
            f"DELETE FROM outbox_events WHERE {with_key('aggregate_id', 'second')} AND sequence = 2",
            {TOLD},
        ),
        (
            f"""
            DELETE FROM audit_log WHERE {OF_TENANT} AND target =
            (SELECT id::text FROM ledger_transactions WHERE {OF_TENANT} AND reference = 'ended')
            AND action = 'transaction.post'
            """,
            {AUDITED},
        ),
        (
            f"UPDATE audit_log SET target = 'x' WHERE {OF_TENANT} AND action = 'transaction.void'",
            {AUDITED, AUDIT_ROWS},
        ),
        (
            f"""
            UPDATE outbox_events SET payload = jsonb_set(payload::jsonb, '{{reference}}', '"other"')::json
            WHERE {with_key("aggregate_id", "first")}
            """,
            {EVENTS},
        ),
        (f"UPDATE accounts SET closed_at = now() WHERE {OF_TENANT} AND code = 'BANK'", {CLOSED}),
        (f"UPDATE accounts SET closed_at = now() WHERE {OF_TENANT} AND code = 'B'", {CLOSED}),
    ],
)
async def test_what_was_tampered_with_is_found(
    books: Journal, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by
