"""The use cases of payments on a real PostgreSQL: what each writes, refuses, and how two at once get along."""

import asyncio
from uuid import uuid4

import pytest

from payments_ledger.errors import AlreadyMoved, PaymentNotFound, Rejected
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.queries import list_balances, list_entries
from payments_ledger.money import AMOUNT_MAX, Money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.use_cases import (
    ConfirmPayment,
    SettlePayment,
    confirm_payments,
    create_payments,
    settle_payments,
)
from payments_ledger.postgres.database import Database
from tests.integration.books import BRL_100, ORIGIN, confirm_a_payment, create_a_payment, creation, settle_a_payment

pytestmark = pytest.mark.anyio


async def test_a_payment_goes_from_created_to_settled(database: Database, tenant: str) -> None:
    payment = await settle_a_payment(database, tenant)
    async with database.transaction([tenant]) as conn:
        assert await find_payment(conn, tenant, payment.id) == payment
        [posted] = await list_entries(conn, tenant, Period(), after=None, limit=10)
        balances = await list_balances(conn, tenant, Period())
    assert (payment.status, payment.version) == (Status.SETTLED, 3)
    assert posted.entry.source_id == payment.id
    assert [(b.account, b.debits_total, b.credits_total, b.balance) for b in balances] == [
        ("CASH", 10_000, 0, 10_000),
        ("REVENUE", 0, 10_000, 10_000),
    ]


async def test_each_move_leaves_one_event_and_one_audit_row(database: Database, tenant: str) -> None:
    payment = await settle_a_payment(database, tenant)
    async with database.transaction([tenant]) as conn:
        events = await conn.execute(
            """
            SELECT event_type, sequence, payload->>'status', payload->>'amount', payload->>'order_id',
                   payload->>'correlation_id', headers->>'X-Correlation-Id', headers->>'X-Tenant-Id'
            FROM outbox_events WHERE aggregate_id = %s ORDER BY sequence
            """,
            [payment.id],
        )
        assert await events.fetchall() == [
            (event_type, sequence, status, "100.00", None, "corr-test", "corr-test", tenant)
            for event_type, sequence, status in (
                ("payment.intent.created", 1, "CREATED"),
                ("payment.authorized", 2, "AUTHORIZED"),
                ("payment.settled", 3, "SETTLED"),
            )
        ]
        audit = await conn.execute("SELECT principal, address, action, target FROM audit_log ORDER BY id")
        assert await audit.fetchall() == [
            ("tester", "127.0.0.1", action, str(payment.id))
            for action in ("payment.create", "payment.authorize", "payment.settle")
        ]


async def test_settling_again_is_told_and_posts_nothing(database: Database, tenant: str) -> None:
    payment = await settle_a_payment(database, tenant)
    async with database.transaction([tenant]) as conn:
        [outcome] = await settle_payments(conn, [SettlePayment(tenant, payment.id, ORIGIN)])
        entries = await list_entries(conn, tenant, Period(), after=None, limit=10)
    assert isinstance(outcome, Rejected)
    assert isinstance(outcome.error, AlreadyMoved)
    assert len(entries) == 1


async def test_a_batch_tells_each_command_its_own_outcome(database: Database, tenant: str) -> None:
    created = await create_a_payment(database, tenant)
    authorized = await confirm_a_payment(database, await create_a_payment(database, tenant))
    ids = [created.id, uuid4(), authorized.id, created.id]
    async with database.transaction([tenant]) as conn:
        outcomes = await confirm_payments(conn, [ConfirmPayment(tenant, id_, ORIGIN) for id_ in ids])
    assert isinstance(outcomes[0], Payment)
    assert [type(outcome.error) for outcome in outcomes[1:] if isinstance(outcome, Rejected)] == [
        PaymentNotFound,
        AlreadyMoved,
        AlreadyMoved,
    ]


async def test_another_tenants_payment_is_not_found(database: Database, tenant: str) -> None:
    payment = await create_a_payment(database, tenant)
    async with database.transaction(["another", tenant]) as conn:
        [outcome] = await confirm_payments(conn, [ConfirmPayment("another", payment.id, ORIGIN)])
    assert isinstance(outcome, Rejected)
    assert isinstance(outcome.error, PaymentNotFound)


async def test_two_opposing_streams_settle_each_payment_once(database: Database, tenant: str) -> None:
    async with database.transaction([tenant]) as conn:
        outcomes = await create_payments(conn, [creation(tenant) for _ in range(40)])
    ids = [payment.id for [payment] in outcomes if isinstance(payment, Payment)]

    async def stream(order: list[int]) -> int:
        outcomes: list[Payment | Rejected] = []
        batches = [[ids[n] for n in order[start : start + 8]] for start in range(0, len(order), 8)]
        for batch in batches:
            async with database.transaction([tenant]) as conn:
                outcomes += await confirm_payments(conn, [ConfirmPayment(tenant, id_, ORIGIN) for id_ in batch])
        for batch in batches:
            async with database.transaction([tenant]) as conn:
                outcomes += await settle_payments(conn, [SettlePayment(tenant, id_, ORIGIN) for id_ in batch])
        return sum(isinstance(outcome, Payment) for outcome in outcomes)

    forwards, backwards = list(range(40)), list(reversed(range(40)))
    moved = await asyncio.gather(stream(forwards), stream(backwards), stream(forwards), stream(backwards))
    async with database.transaction([tenant]) as conn:
        entries = await list_entries(conn, tenant, Period(), after=None, limit=200)
        cash = next(b for b in await list_balances(conn, tenant, Period()) if b.account == "CASH")
    assert sum(moved) == 80
    assert sorted(posted.entry.source_id for posted in entries) == sorted(ids)
    assert cash.balance == 40 * BRL_100.amount


async def test_totals_can_exceed_a_bigint(database: Database, tenant: str) -> None:
    for _ in range(3):
        await settle_a_payment(database, tenant, Money(AMOUNT_MAX, "BRL"))
    async with database.transaction([tenant]) as conn:
        assert {b.balance for b in await list_balances(conn, tenant, Period())} == {3 * AMOUNT_MAX}
