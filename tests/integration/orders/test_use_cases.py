"""Orders on a real PostgreSQL: one payment an order, whatever is repeated, mixed, reordered or raced."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import uuid4

import psycopg
import pytest

from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import (
    AmountExceedsRefundable,
    NotRefundable,
    Rejected,
    TenantSuspended,
    UnknownTenant,
)
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.queries import list_balances, list_entries
from payments_ledger.money import Money
from payments_ledger.orders.use_cases import Cancelled, CancelOrder, NothingToPay, Paid, PayOrder, change_orders
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.queries import find_payment, find_payments_of_orders
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.postgres.database import Database
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.tenants.queries import set_suspended
from tests.integration.books import BRL_100, ORIGIN, create_a_payment, settle_a_payment

pytestmark = pytest.mark.anyio


def pay(tenant: str, order_id: str = "o-1", money: Money | None = BRL_100) -> PayOrder:
    return PayOrder(tenant, order_id, money, ORIGIN)


def cancel(tenant: str, order_id: str = "o-1") -> CancelOrder:
    return CancelOrder(tenant, order_id, ORIGIN)


async def change(
    database: Database, *commands: PayOrder | CancelOrder
) -> list[Paid | NothingToPay | Cancelled | Rejected]:
    async with database.transaction({command.tenant_id for command in commands}) as conn:
        return await change_orders(conn, commands)


async def settle_all(database: Database, tenant: str) -> None:
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute("SELECT id FROM payment_intents WHERE status = 'AUTHORIZED'")
        await settle_payments(conn, [SettlePayment(tenant, id_, ORIGIN) for (id_,) in await cursor.fetchall()])


async def events(database: Database, tenant: str) -> list[tuple[str, int, str]]:
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            "SELECT event_type, sequence, payload->>'order_id' FROM outbox_events ORDER BY aggregate_id, sequence"
        )
        return await cursor.fetchall()


async def test_an_order_becomes_an_authorized_payment_with_both_events(database: Database, tenant: str) -> None:
    [outcome] = await change(database, pay(tenant))
    assert isinstance(outcome, Paid)
    assert outcome.is_new
    async with database.transaction([tenant]) as conn:
        payment = await find_payment(conn, tenant, outcome.payment.id)
    assert payment == outcome.payment
    assert (payment.status, payment.customer_ref, payment.order_id) == (Status.AUTHORIZED, "order:o-1", "o-1")
    assert await events(database, tenant) == [("payment.intent.created", 1, "o-1"), ("payment.authorized", 2, "o-1")]


async def test_a_batch_of_duplicates_over_several_tenants_pays_each_order_once(
    database: Database, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    first, second = await new_tenant(), await new_tenant()
    commands = [pay(first), pay(second), pay(first), pay(first, "o-2"), pay("nobody"), pay(second)]
    outcomes = await change(database, *commands)
    assert [outcome.is_new if isinstance(outcome, Paid) else type(outcome) for outcome in outcomes] == [
        True,
        True,
        False,
        True,
        Rejected,
        False,
    ]
    assert len({outcome.payment.id for outcome in outcomes if isinstance(outcome, Paid)}) == 3


async def test_a_replay_with_another_amount_keeps_the_first(database: Database, tenant: str) -> None:
    await change(database, pay(tenant))
    [outcome] = await change(database, pay(tenant, money=Money(1, "USD")))
    assert isinstance(outcome, Paid)
    assert (outcome.is_new, outcome.payment.money) == (False, BRL_100)


async def test_an_order_that_was_cancelled_before_it_was_confirmed_stays_cancelled(
    database: Database, tenant: str
) -> None:
    assert await change(database, cancel(tenant)) == [Cancelled.NO_PAYMENT]
    assert await change(database, pay(tenant)) == [Cancelled.BEFORE]
    assert await events(database, tenant) == []


async def test_cancelling_what_is_not_settled_cancels_the_payment(database: Database, tenant: str) -> None:
    await change(database, pay(tenant))
    assert await change(database, cancel(tenant), cancel(tenant)) == [
        Cancelled.PAYMENT_CANCELLED,
        Cancelled.BEFORE,
    ]
    await settle_all(database, tenant)
    assert [event_type for event_type, *_ in await events(database, tenant)][2:] == ["payment.cancelled"]


async def test_cancelling_what_is_settled_posts_a_reversing_entry_once(database: Database, tenant: str) -> None:
    [outcome] = await change(database, pay(tenant))
    assert isinstance(outcome, Paid)
    await settle_all(database, tenant)
    assert await change(database, cancel(tenant)) == [Cancelled.PAYMENT_REFUNDED]
    assert await change(database, cancel(tenant)) == [Cancelled.BEFORE]
    async with database.transaction([tenant]) as conn:
        entries = await list_entries(conn, tenant, Period(), after=None, limit=10)
        balances = await list_balances(conn, tenant, Period())
        payment = await find_payment(conn, tenant, outcome.payment.id)
        cursor = await conn.execute(
            """
            SELECT payload->>'refund_id', payload->>'status', payload->>'amount', payload->>'order_id'
            FROM outbox_events WHERE event_type = 'payment.refunded'
            """
        )
        told = await cursor.fetchall()
    assert [posted.entry.kind for posted in entries] == ["refund", "settlement"]
    assert entries[0].entry.subject_id == entries[1].entry.source_id == outcome.payment.id
    assert {balance.balance for balance in balances} == {0}
    assert payment is not None
    assert payment.status is Status.SETTLED
    assert told == [(str(entries[0].entry.source_id), "SETTLED", "100.00", "o-1")]
    assert [sequence for _, sequence, _ in await events(database, tenant)] == [1, 2, 3, 4]


async def test_a_refund_is_refused_twice_and_of_what_is_not_settled(database: Database, tenant: str) -> None:
    settled, created = await settle_a_payment(database, tenant), await create_a_payment(database, tenant)
    commands = [RefundPayment(tenant, id_, None, ORIGIN) for id_ in (settled.id, settled.id, created.id)]
    async with database.transaction([tenant]) as conn:
        outcomes = await refund_payments(conn, commands)
    assert [type(outcome.error) for outcome in outcomes if isinstance(outcome, Rejected)] == [
        AmountExceedsRefundable,
        NotRefundable,
    ]


async def test_a_confirmation_and_a_cancellation_in_one_batch_end_cancelled(database: Database, tenant: str) -> None:
    for order_id, commands in (("a", (pay, cancel)), ("b", (cancel, pay))):
        outcomes = await change(database, *(command(tenant, order_id) for command in commands))
        assert Cancelled.NO_PAYMENT in outcomes
    assert await events(database, tenant) == []


async def test_an_order_of_an_unknown_tenant_leaves_nothing(database: Database) -> None:
    for outcome in await change(database, pay("nobody")) + await change(database, cancel("nobody")):
        assert isinstance(outcome, Rejected)
        assert isinstance(outcome.error, UnknownTenant)


async def test_a_cancelled_order_cannot_be_revived_in_the_database(
    database: Database, owner: Database, tenant: str
) -> None:
    await change(database, cancel(tenant))
    for reviver in (database, owner):
        with pytest.raises(psycopg.errors.RestrictViolation):
            async with reviver.transaction([tenant]) as conn:
                await conn.execute("UPDATE orders SET cancelled_at = NULL")


async def test_opposing_streams_of_confirmations_cancellations_and_settlements_agree(
    database: Database, tenant: str
) -> None:
    """Two workers' group commits race over the same orders: each ends paid or undone, and none in between."""
    orders = [f"o-{uuid4()}" for _ in range(60)]
    to_cancel = set(orders[::2])
    workers = [(GroupCommit(database.transaction), GroupCommit(database.transaction)) for _ in range(2)]

    async def confirm(worker: tuple[GroupCommit, GroupCommit], order_id: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.1))
        outcome = await worker[0].submit(change_orders, pay(tenant, order_id))
        if isinstance(outcome, Paid):
            await worker[1].submit(settle_payments, SettlePayment(tenant, outcome.payment.id, ORIGIN))

    async def undo(worker: tuple[GroupCommit, GroupCommit], order_id: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.1))
        await worker[0].submit(change_orders, cancel(tenant, order_id))

    work = [confirm(worker, order_id) for worker in workers for order_id in orders for _ in range(2)]
    work += [undo(worker, order_id) for worker in workers for order_id in to_cancel]
    random.shuffle(work)
    await asyncio.gather(*work)
    async with database.transaction([tenant]) as conn:
        payments = await find_payments_of_orders(conn, [(tenant, order_id) for order_id in orders])
        balances = await list_balances(conn, tenant, Period())
    by_order = {payment.order_id: payment for payment in payments.values()}
    kept = [order_id for order_id in orders if order_id not in to_cancel]
    assert {by_order[order_id].status for order_id in kept} == {Status.SETTLED}
    # What was cancelled has no payment, a cancelled one, or one whose money went back.
    assert {balance.balance for balance in balances} == {len(kept) * BRL_100.amount}


async def test_orders_of_a_suspended_tenant_and_of_nothing_in_one_batch(
    database: Database, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    active, suspended = await new_tenant(), await new_tenant()
    await change(database, pay(suspended, "paid"))
    async with database.transaction([suspended]) as conn:
        await set_suspended(conn, suspended, True)
    outcomes = await change(
        database,
        pay(suspended, "new"),
        pay(suspended, "paid"),
        pay(suspended, "free", None),
        cancel(suspended, "paid"),
        pay(active, "free", None),
        pay(active, "free", None),
        pay(active, "new"),
        pay(active, "new", None),
    )
    assert [_plain(outcome) for outcome in outcomes] == [
        TenantSuspended,
        Cancelled.BEFORE,
        NothingToPay.NOTED,
        Cancelled.PAYMENT_CANCELLED,
        NothingToPay.NOTED,
        NothingToPay.REPEATED,
        True,
        False,
    ]
    assert [_plain(outcome) for outcome in await change(database, pay(active, "free", None))] == [NothingToPay.REPEATED]


def _plain(outcome: Paid | NothingToPay | Cancelled | Rejected) -> object:
    if isinstance(outcome, Rejected):
        return type(outcome.error)
    return outcome.is_new if isinstance(outcome, Paid) else outcome
