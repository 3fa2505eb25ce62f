"""What can be done with orders: paid once, and cancelled for good, in whichever order the messages come."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from uuid_utils.compat import uuid7

from payments_ledger.audit import Origin
from payments_ledger.errors import OrderCancelled, Rejected, UnknownTenant
from payments_ledger.money import Money
from payments_ledger.orders import queries
from payments_ledger.orders.queries import OrderKey
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payments_of_orders
from payments_ledger.payments.use_cases import (
    CancelPayment,
    ConfirmPayment,
    CreatePayment,
    RefundPayment,
    cancel_payments,
    confirm_payments,
    create_payments,
    refund_payments,
)
from payments_ledger.platform.postgres import Connection
from payments_ledger.tenants.queries import find_tenants


@dataclass(frozen=True, slots=True)
class PayOrder:
    tenant_id: str
    order_id: str
    money: Money
    origin: Origin


@dataclass(frozen=True, slots=True)
class CancelOrder:
    tenant_id: str
    order_id: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Paid:
    """The order has this payment; `is_new` if this command made it."""

    payment: Payment
    is_new: bool


class Cancelled(Enum):
    """What cancelling an order did to its payment."""

    NO_PAYMENT = "there was no payment"
    PAYMENT_CANCELLED = "its payment was cancelled"
    PAYMENT_REFUNDED = "its payment was refunded"
    REPEATED = "it was cancelled before"


async def pay_orders(conn: Connection, commands: Sequence[PayOrder]) -> list[Paid | Rejected]:
    """An AUTHORIZED payment for each order that has none, with its two events in the outbox.

    Rejected: UnknownTenant, and OrderCancelled for an order that was cancelled, even before it was confirmed.
    """
    known, cancelled = await _lock(conn, commands)
    payments = await find_payments_of_orders(conn, known)
    new = {
        _key(command): _new_payment(command)
        for command in reversed(commands)
        if _key(command) in known - cancelled - payments.keys()
    }
    if new:
        await create_payments(conn, list(new.values()))
        confirmations = [
            ConfirmPayment(command.tenant_id, command.payment_id, command.origin) for command in new.values()
        ]
        for outcome in await confirm_payments(conn, confirmations):
            assert isinstance(outcome, Payment)
            assert outcome.order_id is not None
            payments[outcome.tenant_id, outcome.order_id] = outcome
    outcomes: list[Paid | Rejected] = []
    for command in commands:
        key = _key(command)
        if key not in known:
            outcomes.append(Rejected(UnknownTenant()))
        elif key in cancelled:
            outcomes.append(Rejected(OrderCancelled()))
        else:
            # Of several commands for one new order the first made the payment.
            outcomes.append(Paid(payments[key], is_new=new.pop(key, None) is not None))
    return outcomes


async def cancel_orders(conn: Connection, commands: Sequence[CancelOrder]) -> list[Cancelled | Rejected]:
    """Cancels what is not settled and refunds what is; an order without a payment will never get one.

    Rejected: UnknownTenant.
    """
    known, cancelled = await _lock(conn, commands)
    new = {_key(command): command for command in reversed(commands) if _key(command) in known - cancelled}
    effects = dict.fromkeys(new, Cancelled.NO_PAYMENT)
    if new:
        await queries.mark_cancelled(conn, new)
        payments = await find_payments_of_orders(conn, new)
        effects |= await _undo(
            conn, [(payments[key], command.origin) for key, command in new.items() if key in payments]
        )
    return [
        effects.pop(_key(command), Cancelled.REPEATED) if _key(command) in known else Rejected(UnknownTenant())
        for command in commands
    ]


async def _undo(conn: Connection, payments: Sequence[tuple[Payment, Origin]]) -> dict[OrderKey, Cancelled]:
    """Cancels the payments, and refunds those that have settled, maybe only since they were read."""
    effects: dict[OrderKey, Cancelled] = {}
    settled: list[tuple[Payment, Origin]] = []
    cancellations = [CancelPayment(payment.tenant_id, payment.id, origin) for payment, origin in payments]
    for (payment, origin), outcome in zip(payments, await cancel_payments(conn, cancellations), strict=True):
        if isinstance(outcome, Payment):
            effects[payment.tenant_id, payment.order_id or ""] = Cancelled.PAYMENT_CANCELLED
        else:
            settled.append((payment, origin))
    refunds = [RefundPayment(payment.tenant_id, payment.id, origin) for payment, origin in settled]
    for (payment, _), refund in zip(settled, await refund_payments(conn, refunds), strict=True):
        if not isinstance(refund, Rejected):
            effects[payment.tenant_id, payment.order_id or ""] = Cancelled.PAYMENT_REFUNDED
    return effects


async def _lock(
    conn: Connection, commands: Sequence[PayOrder] | Sequence[CancelOrder]
) -> tuple[set[OrderKey], set[OrderKey]]:
    """The orders whose tenant exists, locked, and those of them that were cancelled."""
    tenants = await find_tenants(conn, {command.tenant_id for command in commands})
    known = {_key(command) for command in commands if command.tenant_id in tenants}
    return known, await queries.lock_orders(conn, known) if known else set()


def _key(command: PayOrder | CancelOrder) -> OrderKey:
    return command.tenant_id, command.order_id


def _new_payment(command: PayOrder) -> CreatePayment:
    return CreatePayment(
        tenant_id=command.tenant_id,
        payment_id=uuid7(),
        money=command.money,
        customer_ref=f"order:{command.order_id}",
        origin=command.origin,
        order_id=command.order_id,
    )
