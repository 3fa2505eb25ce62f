"""The audit: clean books pass, and each way to break them is found by the check that is there for it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from payments_ledger.money import Money
from payments_ledger.payments.use_cases import RefundPayment, refund_payments
from payments_ledger.platform.postgres import Connection, Database, auditor_role, driver_url
from payments_ledger.verify import audit as auditing
from payments_ledger.verify.audit import Result, audit
from payments_ledger.verify.checks import CHECKS, FAILURES_SHOWN
from payments_ledger.verify.horizon import Horizon
from payments_ledger.verify.report import as_json
from tests import big_book
from tests.integration.books import ORIGIN, confirm_a_payment, create_a_payment, settle_a_payment
from tests.integration.conftest import opened

pytestmark = pytest.mark.anyio


async def fill(database: Database, tenant: str) -> None:
    """A payment in every status, one of them under an idempotency key, in two currencies."""
    await create_a_payment(database, tenant, idempotency_key="k")
    await confirm_a_payment(database, await create_a_payment(database, tenant))
    await settle_a_payment(database, tenant)
    await settle_a_payment(database, tenant, Money(7, "JPY"))


async def broken_checks(url: str, tenant: str, **options: int) -> dict[str, Result]:
    results = [result async for result in audit(url, tenant_id=tenant, **options)]  # type: ignore[arg-type]
    assert [result.check for result in results] == list(CHECKS)
    return {result.check.name: result for result in results if not result.ok}


def tamper(url: str, tenant: str, statement: str) -> None:
    """As somebody with a superuser's power could: past triggers, foreign keys and row-level security."""
    with psycopg.connect(driver_url(url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(statement.encode(), {"tenant": tenant}).rowcount > 0


async def test_clean_books_pass_and_everything_was_looked_at(
    database: Database, database_url: str, tenant: str
) -> None:
    await fill(database, tenant)
    results = [result async for result in audit(database_url, tenant_id=tenant)]
    assert {result.check.name: result.examined for result in results if result.ok} == {
        "entries_have_postings": 2,
        "postings_are_accounted_for": 2,
        "totals_are_the_fold_of_the_postings": 4,
        "settled_payments_are_posted_once": 4,
        "entries_have_their_payment": 2,
        "refunds_reverse_their_settlement": 0,
        "moves_are_told_without_a_gap": 4,
        "nothing_waits_too_long": 1,
        "kept_answers_match_their_payment": 1,
        "changes_are_audited": 4,
        "events_match_their_payment": 9,
        "audit_rows_have_their_payment": 9,
    }


POSTINGS = "entries_have_postings"
ACCOUNTED = "postings_are_accounted_for"
TOTALS = "totals_are_the_fold_of_the_postings"
POSTED_ONCE = "settled_payments_are_posted_once"
PAYMENT_OF_ENTRY = "entries_have_their_payment"
REFUNDS = "refunds_reverse_their_settlement"
MOVES = "moves_are_told_without_a_gap"
ANSWERS = "kept_answers_match_their_payment"
AUDITED = "changes_are_audited"
EVENTS = "events_match_their_payment"
AUDIT_ROWS = "audit_rows_have_their_payment"

OURS = "tenant_id = %(tenant)s"
IN_JPY = f"{OURS} AND currency = 'JPY'"
SETTLED = f"{OURS} AND status = 'SETTLED'"
CREATED = f"{OURS} AND status = 'CREATED'"


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        (f"DELETE FROM ledger_postings WHERE {IN_JPY}", {POSTINGS, TOTALS, POSTED_ONCE}),
        (f"UPDATE ledger_postings SET position = 2 WHERE {IN_JPY}", {POSTINGS, POSTED_ONCE}),
        (f"UPDATE ledger_postings SET amount = amount + 1 WHERE {IN_JPY}", {TOTALS, POSTED_ONCE}),
        (f"UPDATE account_totals SET debits = debits + 1 WHERE {IN_JPY}", {TOTALS}),
        (f"DELETE FROM account_totals WHERE {IN_JPY} AND account = 'CASH'", {ACCOUNTED}),
        (
            f"""
            INSERT INTO account_totals
            SELECT tenant_id, account, 'EUR', day, debits, credits FROM account_totals WHERE {IN_JPY}
            """,
            {TOTALS},
        ),
        (
            f"""
            DELETE FROM ledger_entries
            WHERE {OURS} AND source_id = (SELECT id FROM payment_intents WHERE {IN_JPY})
            """,
            {POSTED_ONCE, ACCOUNTED},
        ),
        (
            f"""
            INSERT INTO ledger_entries
            SELECT tenant_id, posted_at, gen_random_uuid(), 'settlement', gen_random_uuid(), 'c'
            FROM ledger_entries WHERE {OURS} LIMIT 1
            """,
            {POSTINGS, PAYMENT_OF_ENTRY},
        ),
        (f"UPDATE payment_intents SET amount = amount + 1 WHERE {SETTLED}", {POSTED_ONCE, EVENTS}),
        (f"UPDATE payment_intents SET currency = 'USD' WHERE {IN_JPY}", {POSTED_ONCE, EVENTS}),
        (
            f"UPDATE payment_intents SET status = 'AUTHORIZED' WHERE {IN_JPY}",
            {POSTED_ONCE, PAYMENT_OF_ENTRY, MOVES, AUDITED},
        ),
        (f"UPDATE payment_intents SET status = 'SETTLED' WHERE {CREATED}", {POSTED_ONCE, MOVES, AUDITED}),
        (f"UPDATE payment_intents SET version = 2 WHERE {CREATED}", {MOVES, AUDITED}),
        (f"DELETE FROM payment_intents WHERE {CREATED}", {ANSWERS, EVENTS, AUDIT_ROWS}),
        (f"UPDATE payment_intents SET customer_ref = 'another' WHERE {CREATED}", {ANSWERS, EVENTS}),
        (f"UPDATE payment_intents SET amount = 9 WHERE {CREATED}", {ANSWERS, EVENTS}),
        (f"DELETE FROM outbox_events WHERE {OURS} AND event_type = 'payment.settled'", {MOVES}),
        (f"UPDATE outbox_events SET sequence = 9 WHERE {OURS} AND event_type = 'payment.settled'", {MOVES}),
        (
            f"UPDATE outbox_events SET payload = replace(payload::text, 'SETTLED', 'FAILED')::json WHERE {OURS}",
            {EVENTS},
        ),
        (
            f"UPDATE outbox_events SET payload = replace(payload::text, %(tenant)s, 'another')::json WHERE {OURS}",
            {EVENTS},
        ),
        (f"UPDATE outbox_events SET headers = '{{}}' WHERE {OURS}", {EVENTS}),
        (f"DELETE FROM audit_log WHERE {OURS} AND action = 'payment.settle'", {AUDITED}),
        (f"UPDATE audit_log SET target = 'another' WHERE {OURS} AND action = 'payment.create'", {AUDITED, AUDIT_ROWS}),
    ],
)
async def test_broken_books_are_found(
    database: Database, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    await fill(database, tenant)
    tamper(database_url, tenant, statement)
    broken = await broken_checks(database_url, tenant)
    assert set(broken) == found_by
    for result in broken.values():
        assert result.failures
        assert all(failure["tenant_id"] == tenant for failure in result.failures)


OF_REFUND = "entry_id = (SELECT id FROM ledger_entries WHERE tenant_id = %(tenant)s AND kind = 'refund')"


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        ("SELECT %(tenant)s", set()),
        (f"DELETE FROM outbox_events WHERE {OURS} AND event_type = 'payment.refunded'", {REFUNDS}),
        (f"UPDATE ledger_postings SET amount = amount - 1 WHERE {OURS} AND {OF_REFUND}", {REFUNDS, TOTALS}),
        (
            f"""
            UPDATE ledger_postings SET debit_account = credit_account, credit_account = debit_account
            WHERE {OURS} AND {OF_REFUND}
            """,
            {REFUNDS, TOTALS},
        ),
        (f"DELETE FROM ledger_postings WHERE {OURS} AND {OF_REFUND}", {REFUNDS, TOTALS, POSTINGS}),
    ],
)
async def test_a_refund_that_does_not_reverse_its_settlement_is_found(
    database: Database, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    payment = await settle_a_payment(database, tenant)
    async with database.transaction([tenant]) as conn:
        await refund_payments(conn, [RefundPayment(tenant, payment.id, ORIGIN)])
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by


async def test_a_payment_that_waits_too_long_is_found(database: Database, database_url: str, tenant: str) -> None:
    payment = await confirm_a_payment(database, await create_a_payment(database, tenant))
    broken = await broken_checks(database_url, tenant, authorized_seconds_max=0)
    assert [failure["payment_id"] for failure in broken["nothing_waits_too_long"].failures] == [str(payment.id)]


async def test_many_failures_are_counted_and_the_first_are_shown(
    database: Database, database_url: str, tenant: str
) -> None:
    for _ in range(FAILURES_SHOWN + 5):
        await create_a_payment(database, tenant)
    tamper(database_url, tenant, "DELETE FROM audit_log WHERE tenant_id = %(tenant)s")
    result = (await broken_checks(database_url, tenant))["changes_are_audited"]
    assert (result.broken, len(result.failures)) == (FAILURES_SHOWN + 5, FAILURES_SHOWN)


async def test_only_what_was_written_since_is_looked_at(database: Database, database_url: str, tenant: str) -> None:
    await fill(database, tenant)
    later = datetime.now(UTC) + timedelta(days=1)
    results = [result async for result in audit(database_url, tenant_id=tenant, since=later)]
    assert {result.examined for result in results} == {0}


async def test_the_results_can_be_read_by_a_program(database: Database, database_url: str, tenant: str) -> None:
    await fill(database, tenant)
    tamper(database_url, tenant, "DELETE FROM audit_log WHERE tenant_id = %(tenant)s")
    report = json.loads(as_json([result async for result in audit(database_url, tenant_id=tenant)]))
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"] if not check["ok"]] == ["changes_are_audited"]
    assert report["checks"][0].keys() >= {"name", "ok", "examined", "failures"}


async def test_the_auditor_can_change_nothing(database: Database, database_url: str, tenant: str) -> None:
    await fill(database, tenant)
    async with opened(Database(database_url, role=auditor_role(database_url), pool_size_max=2)) as auditor:
        for statement in (
            "UPDATE payment_intents SET version = version + 1",
            "DELETE FROM outbox_events",
            "INSERT INTO audit_log SELECT * FROM audit_log",
            "SELECT FROM users",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with auditor.transaction([tenant]) as conn:
                    await conn.execute(statement)


async def test_what_retention_has_dropped_is_no_loss_but_what_is_younger_is(
    database: Database, database_url: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await settle_a_payment(database, tenant)
    created = await create_a_payment(database, tenant)
    moved = await confirm_a_payment(database, created)
    young = await create_a_payment(database, tenant)

    async def from_then_on(_: Connection) -> Horizon:
        return Horizon(events_since=young.created_at, audit_since=moved.updated_at)

    # All of the first payment is gone, and of the second one how it began.
    for table, time in (("outbox_events", "created_at"), ("audit_log", "at")):
        tamper(database_url, tenant, f"DELETE FROM {table} WHERE {OURS} AND {time} < '{moved.updated_at}'")
    gone = {MOVES, AUDITED}
    assert set(await broken_checks(database_url, tenant)) == gone
    monkeypatch.setattr(auditing, "find_horizon", from_then_on)
    assert await broken_checks(database_url, tenant) == {}
    # Events are kept by the age of their payment, audit rows by their own.
    tamper(database_url, tenant, f"DELETE FROM outbox_events WHERE {OURS} AND aggregate_id = '{moved.id}'")
    assert await broken_checks(database_url, tenant) == {}
    for table, target in (("outbox_events", "aggregate_id"), ("audit_log", "target")):
        tamper(database_url, tenant, f"DELETE FROM {table} WHERE {OURS} AND {target} IN ('{moved.id}', '{young.id}')")
    broken = await broken_checks(database_url, tenant)
    assert set(broken) == gone
    assert {failure["payment_id"] for failure in broken[MOVES].failures} == {str(young.id)}
    assert {failure["payment_id"] for failure in broken[AUDITED].failures} == {str(moved.id), str(young.id)}
    assert str(old.id) not in str(broken)


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        # A way that no payment may go: it was AUTHORIZED only after it was SETTLED.
        (
            f"""
            UPDATE outbox_events SET event_type = CASE sequence WHEN 2 THEN 'payment.settled'
                                                                ELSE 'payment.authorized' END
            WHERE {OURS} AND sequence > 1
              AND aggregate_id = (SELECT id FROM payment_intents WHERE {IN_JPY})
            """,
            {MOVES, EVENTS},
        ),
        (
            f"UPDATE audit_log SET action = 'payment.create' WHERE {OURS} AND action = 'payment.authorize'",
            {AUDITED},
        ),
        (f"UPDATE ledger_postings SET entry_id = gen_random_uuid() WHERE {IN_JPY}", {POSTINGS, ACCOUNTED, POSTED_ONCE}),
        (f"UPDATE idempotency_keys SET route = route || '/another/confirm' WHERE {OURS}", {ANSWERS}),
        (f"UPDATE idempotency_keys SET location = '/v1/payment-intents/another' WHERE {OURS}", {ANSWERS}),
        (f"UPDATE idempotency_keys SET body = replace(body::text, '226964', '226965')::bytea WHERE {OURS}", {ANSWERS}),
        (
            f"UPDATE outbox_events SET payload = replace(payload::text, '100.00', '1.0000')::json WHERE {OURS}",
            {EVENTS},
        ),
        (f"UPDATE idempotency_keys SET body = 'no JSON' WHERE {OURS}", {ANSWERS}),
    ],
)
async def test_a_falsified_history_answer_or_event_is_found(
    database: Database, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    await fill(database, tenant)
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by


async def test_a_big_book_is_clean(database_url: str) -> None:
    """The generator and the engine agree on what a book looks like: the audit is the judge of both."""
    book = await asyncio.to_thread(big_book.fill, database_url, payments=2000, tenants=1)
    results = [result async for result in audit(database_url, tenant_id=book.tenants[0])]
    assert [result.check.name for result in results if not result.ok] == []
    assert all(result.examined for result in results if result.check.name != "nothing_waits_too_long")
