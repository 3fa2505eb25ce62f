"""The audit: clean books pass, and each way to break them is found by the check that is there for it.

Long because it has a way to break the books for each check.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import psycopg
import pytest

from payments_ledger.cli.verify import _as_json
from payments_ledger.errors import UnknownTenant
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.transactions import invariants as transactions
from payments_ledger.money import Money
from payments_ledger.orders.use_cases import CancelOrder, PayOrder, change_orders
from payments_ledger.payments.routes import PATH
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.postgres.database import Connection, Database, driver_url
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.verify import audit as auditing
from payments_ledger.verify.audit import audit
from payments_ledger.verify.horizon import Horizon
from payments_ledger.verify.invariant import FAILURES_SHOWN
from tests import big_book
from tests.integration.books import (
    BRL_100,
    ORIGIN,
    broken_checks,
    confirm_a_payment,
    create_a_payment,
    settle_a_payment,
)
from tests.integration.conftest import Api, opened
from tests.integration.payments.lifecycle_requests import act, authorized, settle
from tests.iso_4217 import EXPONENTS

pytestmark = pytest.mark.anyio


async def fill(database: Database, tenant: str) -> None:
    """A payment in every status, one of them under an idempotency key, in two currencies."""
    await create_a_payment(database, tenant, idempotency_key="k")
    await confirm_a_payment(database, await create_a_payment(database, tenant))
    await settle_a_payment(database, tenant)
    await settle_a_payment(database, tenant, Money(7, "JPY"))


def tamper(url: str, tenant: str, statement: str) -> None:
    """As somebody with a superuser's power could: past triggers, foreign keys and row-level security."""
    with psycopg.connect(driver_url(url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(statement.encode(), {"tenant": tenant}).rowcount > 0


async def test_clean_books_pass_and_everything_was_looked_at(
    database: Database, database_url: str, tenant: str
) -> None:
    await fill(database, tenant)
    results = [result async for result in audit(database_url, INVARIANTS, tenant_id=tenant, bounds=BOUNDS)]
    assert {result.invariant.name: result.examined for result in results if result.ok} == {
        "entries_have_postings": 2,
        "postings_are_accounted_for": 2,
        "totals_are_the_fold_of_the_postings": 4,
        "settled_payments_are_posted_once": 4,
        "entries_have_a_declared_kind": 2,
        "settlements_have_their_payment": 2,
        "refund_entries_have_their_refund": 0,
        "refunds_add_up": 4,
        "kept_answers_match_their_refund": 0,
        "refunds_reverse_their_settlement": 0,
        "moves_are_told_without_a_gap": 4,
        "nothing_waits_too_long": 1,
        "orders_agree_with_the_books": 0,
        "kept_answers_match_their_payment": 1,
        "kept_batches_match_the_books": 0,
        "kept_refusals_match_the_books": 0,
        "changes_are_audited": 4,
        "events_match_their_payment": 9,
        "payments_can_be_listed": 4,
        "events_are_published_or_due": 9,
        "events_have_a_position": 9,
        "positions_follow_without_a_gap": 0,
        "audit_rows_have_their_payment": 9,
        "totals_have_their_account": 4,
        "currencies_have_the_places_of_the_standard": len(EXPONENTS) + 6,
        # Of transactions of the ledger's own there are none here (tests/integration/ledger/transactions).
        **{invariant.name: 0 for invariant in transactions.INVARIANTS},
        "entries_are_booked_on_their_day": 2,
        "postings_have_the_times_of_their_entry": 2,
        "postings_booked_on_another_day_are_accounted_for": 0,
        "shifted_totals_are_the_fold_of_the_postings": 0,
        "entries_are_effective_as_their_transaction": 0,
    }


POSTINGS = "entries_have_postings"
ACCOUNTED = "postings_are_accounted_for"
TOTALS = "totals_are_the_fold_of_the_postings"
POSTED_ONCE = "settled_payments_are_posted_once"
PAYMENT_OF_ENTRY = "settlements_have_their_payment"
KINDS = "entries_have_a_declared_kind"
REFUNDS = "refunds_reverse_their_settlement"
MOVES = "moves_are_told_without_a_gap"
ANSWERS = "kept_answers_match_their_payment"
AUDITED = "changes_are_audited"
LISTED = "payments_can_be_listed"
EVENTS = "events_match_their_payment"
AUDIT_ROWS = "audit_rows_have_their_payment"
ORDERS = "orders_agree_with_the_books"
BATCHES = "kept_batches_match_the_books"
REFUSALS = "kept_refusals_match_the_books"
PUBLISHED = "events_are_published_or_due"
ACCOUNTS = "totals_have_their_account"
REFUND_OF_ENTRY = "refund_entries_have_their_refund"
REFUND_SUMS = "refunds_add_up"
REFUND_ANSWERS = "kept_answers_match_their_refund"
CURRENCIES = "currencies_have_the_places_of_the_standard"

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
        (f"UPDATE payment_intents SET amount = amount + 1 WHERE {SETTLED}", {POSTED_ONCE, EVENTS, AUDIT_ROWS}),
        (f"UPDATE payment_intents SET currency = 'USD' WHERE {IN_JPY}", {POSTED_ONCE, EVENTS, AUDIT_ROWS}),
        (
            f"UPDATE payment_intents SET status = 'AUTHORIZED' WHERE {IN_JPY}",
            {POSTED_ONCE, PAYMENT_OF_ENTRY, MOVES, AUDITED, LISTED},
        ),
        (f"UPDATE payment_intents SET status = 'SETTLED' WHERE {CREATED}", {POSTED_ONCE, MOVES, AUDITED, LISTED}),
        (f"DELETE FROM unsettled_payments WHERE {OURS}", {LISTED}),
        (f"UPDATE unsettled_payments SET status = 'FAILED' WHERE {OURS}", {LISTED}),
        (f'UPDATE payment_intents SET metadata = \'{{"a": "1"}}\' WHERE {IN_JPY}', {LISTED}),
        (f"UPDATE payment_intents SET version = 2 WHERE {CREATED}", {MOVES, AUDITED}),
        (f"DELETE FROM payment_intents WHERE {CREATED}", {ANSWERS, EVENTS, AUDIT_ROWS}),
        (f"UPDATE payment_intents SET customer_ref = 'another' WHERE {CREATED}", {ANSWERS, EVENTS}),
        (f"UPDATE payment_intents SET amount = 9 WHERE {CREATED}", {ANSWERS, EVENTS, AUDIT_ROWS}),
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
        (f"DELETE FROM outbox_events WHERE {OURS} AND event_type = 'payment.refunded'", {REFUNDS, MOVES}),
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
        await refund_payments(conn, [RefundPayment(tenant, payment.id, None, ORIGIN)])
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        ("SELECT %(tenant)s", set()),
        (
            f"UPDATE payment_intents SET amount_captured = 7999, amount_settled = 7999 WHERE {SETTLED}",
            {POSTED_ONCE, EVENTS},
        ),
        (
            f"UPDATE payment_intents SET capture_id = gen_random_uuid() WHERE {SETTLED}",
            {POSTED_ONCE, PAYMENT_OF_ENTRY, REFUNDS},
        ),
        (f"UPDATE payment_intents SET amount_refunded = 2999 WHERE {SETTLED}", {REFUND_SUMS}),
        (f"UPDATE payment_refunds SET amount = 2999 WHERE {OURS}", {REFUNDS, REFUND_SUMS, REFUND_ANSWERS}),
        (f"UPDATE payment_refunds SET reference = 'other' WHERE {OURS}", {REFUND_ANSWERS}),
        (
            f"DELETE FROM payment_refunds WHERE {OURS}",
            {REFUND_OF_ENTRY, REFUND_SUMS, REFUND_ANSWERS, MOVES, AUDITED},
        ),
        (f"DELETE FROM audit_log WHERE {OURS} AND action = 'payment.capture'", {AUDITED}),
        (f"DELETE FROM audit_log WHERE {OURS} AND action = 'payment.refund'", {REFUNDS}),
        (f"DELETE FROM outbox_events WHERE {OURS} AND event_type = 'payment.capture_requested'", {MOVES}),
        (
            f"UPDATE outbox_events SET payload = replace(payload::text, '80.00', '81.00')::json WHERE {OURS}",
            {EVENTS},
        ),
        (f"UPDATE idempotency_keys SET location = '/v1/refunds/other' WHERE {OURS}", {REFUND_ANSWERS, ANSWERS}),
    ],
)
async def test_a_falsified_capture_or_refund_is_found(
    api: Api, database: Database, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    headers = api.headers(tenant, role="admin")
    payment = await authorized(api, headers, capture_method="manual")
    await act(api, headers, payment["id"], "capture", {"amount": "80.00"})
    await settle(database, tenant, payment["id"])
    response = await act(api, headers, payment["id"], "refunds", {"amount": "30.00", "reference": "R-1"})
    assert response.status_code == 201
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
    results = [result async for result in audit(database_url, INVARIANTS, tenant_id=tenant, since=later, bounds=BOUNDS)]
    assert {result.examined for result in results} == {0}


async def test_the_results_can_be_read_by_a_program(database: Database, database_url: str, tenant: str) -> None:
    await fill(database, tenant)
    tamper(database_url, tenant, "DELETE FROM audit_log WHERE tenant_id = %(tenant)s")
    report = json.loads(
        _as_json([result async for result in audit(database_url, INVARIANTS, tenant_id=tenant, bounds=BOUNDS)])
    )
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
            {AUDITED, AUDIT_ROWS},
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
    results = [result async for result in audit(database_url, INVARIANTS, tenant_id=book.tenants[0], bounds=BOUNDS)]
    assert [result.invariant.name for result in results if not result.ok] == []
    absent = {"positions_follow_without_a_gap", "nothing_waits_too_long", "kept_answers_match_their_refund"}
    absent |= {invariant.name for invariant in transactions.INVARIANTS}
    # Nothing in it is backdated, and its tenants have UTC.
    absent |= {
        "postings_booked_on_another_day_are_accounted_for",
        "shifted_totals_are_the_fold_of_the_postings",
        "entries_are_effective_as_their_transaction",
    }
    assert {result.invariant.name for result in results if not result.examined} == absent


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        # Whoever can change postings can change the totals with them.
        pytest.param(
            f"""
            WITH reversed AS (
                UPDATE ledger_postings SET debit_account = credit_account, credit_account = debit_account WHERE {IN_JPY}
            )
            UPDATE account_totals SET debits = credits, credits = debits WHERE {IN_JPY}
            """,
            {POSTED_ONCE},
            id="a settlement that is reversed",
        ),
        pytest.param(
            f"""
            WITH opened AS (INSERT INTO accounts VALUES (%(tenant)s, 'OTHER', 'Of somebody else', 'revenue')),
                 moved AS (UPDATE ledger_postings SET credit_account = 'OTHER' WHERE {IN_JPY})
            UPDATE account_totals SET account = 'OTHER' WHERE {IN_JPY} AND account = 'REVENUE'
            """,
            {POSTED_ONCE},
            id="a settlement that is moved to another account",
        ),
        pytest.param(
            f"""
            WITH entry AS (
                INSERT INTO ledger_entries
                SELECT tenant_id, posted_at, gen_random_uuid(), 'bonus', source_id, 'c'
                FROM ledger_entries
                WHERE {OURS} AND source_id = (SELECT id FROM payment_intents WHERE {IN_JPY})
                RETURNING *
            ), posting AS (
                INSERT INTO ledger_postings
                SELECT tenant_id, posted_at, id, 1, 'REVENUE', 'CASH', 'JPY', 7 FROM entry
            )
            UPDATE account_totals SET debits = 7, credits = 7 WHERE {IN_JPY}
            """,
            {KINDS},
            id="an entry of an unknown kind",
        ),
        pytest.param(
            f"UPDATE accounts SET type = 'liability' WHERE {OURS} AND code = 'CASH'", {ACCOUNTS}, id="an account's type"
        ),
        pytest.param(f"DELETE FROM accounts WHERE {OURS} AND code = 'CASH'", {ACCOUNTS}, id="an account that is gone"),
        pytest.param(
            f"""
            UPDATE audit_log SET detail = replace(detail::text, '100.00 BRL', '10.00 BRL')::json
            WHERE {OURS} AND action = 'payment.settle'
            """,
            {AUDIT_ROWS},
            id="an amount in the audit log",
        ),
        pytest.param(
            f"""
            UPDATE audit_log SET detail = replace(detail::text, 'AUTHORIZED', 'CREATED')::json
            WHERE {OURS} AND action = 'payment.settle'
            """,
            {AUDIT_ROWS},
            id="a move in the audit log",
        ),
        pytest.param(
            f"UPDATE audit_log SET detail = '{{}}' WHERE {OURS}", {AUDIT_ROWS}, id="no detail in the audit log"
        ),
        pytest.param(
            f"UPDATE outbox_events SET published_at = now() WHERE {OURS}", {PUBLISHED}, id="published and never tried"
        ),
        pytest.param(
            f"UPDATE outbox_events SET published_at = now() + interval '10 years', attempts = 1 WHERE {OURS}",
            {PUBLISHED},
            id="published in ten years",
        ),
        pytest.param(
            f"UPDATE outbox_events SET published_at = now() - interval '10 years', attempts = 1 WHERE {OURS}",
            {PUBLISHED},
            id="published before it happened",
        ),
        pytest.param(
            f"UPDATE outbox_events SET next_attempt_at = now() + interval '10 years' WHERE {OURS}",
            {PUBLISHED},
            id="due in ten years",
        ),
        pytest.param(
            f"UPDATE outbox_events SET next_attempt_at = 'infinity' WHERE {OURS}", {PUBLISHED}, id="never due"
        ),
        pytest.param(
            f"UPDATE outbox_events SET buried_at = now() WHERE {OURS}", {PUBLISHED}, id="buried and never tried"
        ),
        pytest.param(
            f"""
            UPDATE outbox_events
            SET attempts = 9, next_attempt_at = now() + interval '60 seconds', last_error = 'unrouted' WHERE {OURS}
            """,
            set(),
            id="postponed by the relay",
        ),
    ],
)
async def test_what_was_made_to_look_right_is_found(
    database: Database, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    await fill(database, tenant)
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by


OF_ORDER = f"{OURS} AND order_id = "


@pytest.mark.parametrize(
    ("statement", "order_id"),
    [
        ("SELECT %(tenant)s", None),
        (f"UPDATE orders SET cancelled_at = now() WHERE {OF_ORDER} 'settled'", "settled"),
        (f"UPDATE orders SET cancelled_at = now() WHERE {OF_ORDER} 'authorized'", "authorized"),
        (f"UPDATE orders SET cancelled_at = NULL WHERE {OF_ORDER} 'refunded'", "refunded"),
        (f"UPDATE orders SET cancelled_at = NULL WHERE {OF_ORDER} 'cancelled'", "cancelled"),
        (f"DELETE FROM orders WHERE {OF_ORDER} 'settled'", "settled"),
        (f"DELETE FROM orders WHERE {OF_ORDER} 'cancelled'", "cancelled"),
    ],
)
async def test_an_order_that_does_not_agree_with_its_payment_is_found(
    database: Database, database_url: str, tenant: str, statement: str, order_id: str | None
) -> None:
    async def change(*commands: PayOrder | CancelOrder) -> None:
        async with database.transaction([tenant]) as conn:
            await change_orders(conn, commands)

    await change(*(PayOrder(tenant, order, BRL_100, ORIGIN) for order in ("settled", "refunded")))
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute("SELECT id FROM payment_intents")
        await settle_payments(conn, [SettlePayment(tenant, id_, ORIGIN) for (id_,) in await cursor.fetchall()])
    await change(*(PayOrder(tenant, order, BRL_100, ORIGIN) for order in ("authorized", "cancelled")))
    await change(*(CancelOrder(tenant, order, ORIGIN) for order in ("refunded", "cancelled", "never paid")))
    tamper(database_url, tenant, statement)
    broken = await broken_checks(database_url, tenant)
    assert set(broken) == ({ORDERS} if order_id else set())
    assert {failure["order_id"] for result in broken.values() for failure in result.failures} == (
        {order_id} if order_id else set()
    )


GOOD = {"amount": "10.50", "currency": "BRL", "customer_ref": "C-1"}
BATCH = f"{OURS} AND route = 'POST {PATH}/batch'"
REFUSED = f"{OURS} AND status = 409"
NOT_FOUND = f"{OURS} AND status = 404"
CONFIRMED = f"{OURS} AND status = 200 AND route LIKE '%%/confirm'"


def replaced(old: str, new: str) -> str:
    return (
        f"UPDATE idempotency_keys SET body = convert_to(replace(convert_from(body, 'UTF8'), '{old}', '{new}'), 'UTF8')"
    )


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        pytest.param("SELECT %(tenant)s", set(), id="nothing changed"),
        pytest.param(f"{replaced('10.50', '10.49')} WHERE {BATCH}", {BATCHES}, id="an amount in a batch"),
        pytest.param(f"{replaced('C-1', 'C-2')} WHERE {BATCH}", {BATCHES}, id="a reference in a batch"),
        pytest.param(f"{replaced('CREATED', 'SETTLED')} WHERE {BATCH}", {BATCHES}, id="a status in a batch"),
        pytest.param(
            f"{replaced('[{"status":201', '[{"status":422')} WHERE {BATCH}", {BATCHES}, id="a batch's refusal"
        ),
        pytest.param(f"{replaced('{"status":422', '{"status":201')} WHERE {BATCH}", {BATCHES}, id="a batch's success"),
        pytest.param(f"UPDATE idempotency_keys SET body = '{{}}' WHERE {BATCH}", {BATCHES}, id="a batch of nothing"),
        pytest.param(
            f"UPDATE idempotency_keys SET status = 409 WHERE {BATCH}", {BATCHES}, id="a batch that was refused"
        ),
        pytest.param(
            f"UPDATE idempotency_keys SET status = 404 WHERE {REFUSED}", {REFUSALS}, id="a status that its body denies"
        ),
        pytest.param(
            f"{replaced('"status":409', '"status":404')}, status = 404 WHERE {REFUSED}",
            {REFUSALS},
            id="a payment that is said not to exist",
        ),
        pytest.param(
            f"{replaced('"status":404', '"status":409')}, status = 409 WHERE {NOT_FOUND}",
            {REFUSALS},
            id="a payment that does not exist",
        ),
        pytest.param(
            f"{replaced('"status":409', '"status":500')}, status = 500 WHERE {REFUSED}",
            {REFUSALS},
            id="a fault of ours",
        ),
        pytest.param(
            f"UPDATE idempotency_keys SET route = 'POST {PATH}/' || gen_random_uuid() || '/confirm' WHERE {REFUSED}",
            {REFUSALS},
            id="a refusal of another payment",
        ),
        pytest.param(
            f"UPDATE idempotency_keys SET route = 'POST {PATH}/' || gen_random_uuid() || '/confirm' WHERE {CONFIRMED}",
            {ANSWERS},
            id="a confirmation of another payment",
        ),
        pytest.param(
            f"UPDATE idempotency_keys SET route = 'POST {PATH}/{{payment_id}}/confirm' WHERE {REFUSED} OR {CONFIRMED}",
            set(),
            id="a route's template",
        ),
        pytest.param(
            f"""
            UPDATE idempotency_keys
            SET route = 'POST {PATH}/' || upper(split_part(route, '/', 4)) || '/confirm'
            WHERE {REFUSED} OR {CONFIRMED}
            """,
            set(),
            id="an id in upper case",
        ),
    ],
)
async def test_kept_answers_of_batches_and_refusals_are_checked(
    api: Api, database_url: str, tenant: str, statement: str, found_by: set[str]
) -> None:
    headers = api.headers(tenant)

    async def post(path: str, body: object = None) -> httpx.Response:
        return await api.client.post(path, json=body, headers=headers | {"Idempotency-Key": str(uuid4())})

    batch = await post(f"{PATH}/batch", {"payment_intents": [GOOD, {**GOOD, "amount": 0}, GOOD]})
    assert [outcome["status"] for outcome in batch.json()["outcomes"]] == [201, 422, 201]
    payment_id = batch.json()["outcomes"][0]["payment_intent"]["id"]
    statuses = [(await post(f"{PATH}/{id_}/confirm")).status_code for id_ in (payment_id, payment_id, uuid4())]
    assert statuses == [200, 409, 404]
    tamper(database_url, tenant, statement)
    assert set(await broken_checks(database_url, tenant)) == found_by


async def test_a_payment_that_was_confirmed_under_its_id_in_upper_case_is_clean(
    api: Api, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": "k"}
    payment_id = (await api.client.post(PATH, json=GOOD, headers=headers)).json()["id"]
    for _ in range(2):
        answer = await api.client.post(f"{PATH}/{payment_id.upper()}/confirm", headers=headers)
        assert (answer.status_code, answer.json()["id"]) == (200, payment_id)
    assert await broken_checks(database_url, tenant) == {}


async def test_an_exponent_that_was_changed_is_found(database_url: str, tenant: str) -> None:
    change = "UPDATE currencies SET exponent = {} WHERE code = 'CLF' AND %(tenant)s <> ''"
    tamper(database_url, tenant, change.format(2))
    try:
        broken = await broken_checks(database_url, tenant)
    finally:
        tamper(database_url, tenant, change.format(4))
    assert set(broken) == {CURRENCIES}
    assert broken[CURRENCIES].failures == [{"code": "CLF", "exponent": 2, "expected_exponent": 4}]


async def test_a_tenant_that_does_not_exist_is_not_said_to_be_clean(database_url: str) -> None:
    with pytest.raises(UnknownTenant):
        await broken_checks(database_url, "nowhere")
