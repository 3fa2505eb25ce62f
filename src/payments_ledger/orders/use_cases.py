"""What can be done with orders: paid once, and cancelled for good, in whichever order the messages come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from uuid_utils.compat import uuid7

from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.errors import Rejected, TenantSuspended, UnknownTenant
from payments_ledger.money import Money
from payments_ledger.orders import queries
from payments_ledger.orders.queries import Locked, OrderKey
from payments_ledger.payments.payment import CancellationReason, Payment
from payments_ledger.payments.queries import find_payments_of_orders
from payments_ledger.payments.use_cases import (
    CancelPayment,
    ConfirmPayment,
    CreatePayments,
    NewPayment,
    cancel_payments,
    confirm_payments,
    create_payments,
)
from payments_ledger.postgres.database import Connection
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.tenants.queries import find_suspended_tenants, find_tenants

NOTHING_TO_PAY_AUDIT_ACTION = "order.nothing_to_pay"


@dataclass(frozen=True, slots=True)
class PayOrder:
    """`money` is None for an order that costs nothing."""

    tenant_id: str
    order_id: str
    money: Money | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """For good: an order that was cancelled is not paid if it is confirmed later."""

    tenant_id: str
    order_id: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Paid:
    """The order has this payment; `is_new` if this command made it."""

    payment: Payment
    is_new: bool


class NothingToPay(Enum):
    """The order costs nothing and has no payment; NOTED if it is new, REPEATED otherwise."""

    NOTED = "nothing to pay"
    REPEATED = "nothing to pay, repeated"


class Cancelled(Enum):
    """What cancelling an order did to its payment; BEFORE also for an order that is to be paid after that."""

    NO_PAYMENT = "there was no payment"
    PAYMENT_CANCELLED = "its payment was cancelled"
    PAYMENT_REFUNDED = "its payment was refunded"
    NOTHING_LEFT = "nothing of its payment was left to refund"
    BEFORE = "it was cancelled before"


async def change_orders(
    conn: Connection, commands: Sequence[PayOrder | CancelOrder]
) -> list[Paid | NothingToPay | Cancelled | Rejected]:
    """Pays and cancels orders. Both in one use case, so that one statement locks all orders of a batch, sorted.

    An order that is to be paid gets an AUTHORIZED payment, with its two events in the outbox, unless it has one. One
    that costs nothing gets none, but a row in the audit log. Of an order that is to be cancelled, what is not settled
    is cancelled and what is settled is refunded; without a payment it will never get one. Rejected: UnknownTenant,
    TenantSuspended for a new payment, and what create_payments rejects.
    """
    tenants = await find_tenants(conn, {command.tenant_id for command in commands})
    suspended = await find_suspended_tenants(conn, tenants) if tenants else set()
    orders = {_key(command) for command in commands if command.tenant_id in tenants}
    locked = await queries.lock_orders(conn, orders) if orders else Locked()
    cancelled = locked.cancelled
    payments = await find_payments_of_orders(conn, orders) if orders else {}
    cancellations = {
        _key(command): command
        for command in reversed(commands)
        if isinstance(command, CancelOrder) and _key(command) in orders - cancelled
    }
    effects = await _cancel(conn, cancellations, payments)
    cancelled |= cancellations.keys()
    new_payments = {
        _key(command): command
        for command in reversed(commands)
        if isinstance(command, PayOrder)
        and command.money is not None
        and command.tenant_id not in suspended
        and _key(command) in orders - cancelled - payments.keys()
    }
    paid, refused = await _pay(conn, list(new_payments.values()))
    payments |= paid

    new_orders = locked.new
    audit: list[AuditRecord] = []
    outcomes: list[Paid | NothingToPay | Cancelled | Rejected] = []
    for command in commands:
        key = _key(command)
        if key not in orders:
            outcomes.append(Rejected(UnknownTenant()))
        elif isinstance(command, CancelOrder):
            outcomes.append(effects.pop(key, Cancelled.BEFORE))
        elif key in cancelled:
            outcomes.append(Cancelled.BEFORE)
        elif key in refused:
            outcomes.append(refused[key])
        elif key in payments:
            # Of several commands for one new order the first one made the payment.
            outcomes.append(Paid(payments[key], is_new=new_payments.pop(key, None) is not None))
        elif command.money is not None:
            outcomes.append(Rejected(TenantSuspended()))
        elif key in new_orders:
            new_orders.remove(key)
            audit.append(AuditRecord(command.tenant_id, command.origin, NOTHING_TO_PAY_AUDIT_ACTION, command.order_id))
            outcomes.append(NothingToPay.NOTED)
        else:
            outcomes.append(NothingToPay.REPEATED)
    if audit:
        defer_audit(conn, audit)
    return outcomes


async def _pay(
    conn: Connection, commands: Sequence[PayOrder]
) -> tuple[dict[OrderKey, Payment], dict[OrderKey, Rejected]]:
    """The AUTHORIZED payments, and why some orders have none."""
    if not commands:
        return {}, {}
    creations = [CreatePayments(command.tenant_id, (_new_payment(command),), command.origin) for command in commands]
    created = [outcome for [outcome] in await create_payments(conn, creations)]
    refused = {
        _key(command): outcome
        for command, outcome in zip(commands, created, strict=True)
        if isinstance(outcome, Rejected)
    }
    confirmations = [
        ConfirmPayment(outcome.tenant_id, outcome.id, command.origin)
        for command, outcome in zip(commands, created, strict=True)
        if isinstance(outcome, Payment)
    ]
    payments: dict[OrderKey, Payment] = {}
    for payment in await confirm_payments(conn, confirmations) if confirmations else ():
        assert isinstance(payment, Payment)
        payments[payment.tenant_id, payment.order_id or ""] = payment
    return payments, refused


async def _cancel(
    conn: Connection, commands: Mapping[OrderKey, CancelOrder], payments: Mapping[OrderKey, Payment]
) -> dict[OrderKey, Cancelled]:
    if not commands:
        return {}
    await queries.mark_cancelled(conn, commands)
    to_undo = [(payments[key], command.origin) for key, command in commands.items() if key in payments]
    return dict.fromkeys(commands, Cancelled.NO_PAYMENT) | await _undo(conn, to_undo)


async def _undo(conn: Connection, payments: Sequence[tuple[Payment, Origin]]) -> dict[OrderKey, Cancelled]:
    """Cancels the payments, and refunds what is left of those that have settled, maybe only since they were read."""
    if not payments:
        return {}
    effects: dict[OrderKey, Cancelled] = {}
    settled: list[tuple[Payment, Origin]] = []
    cancellations = [
        CancelPayment(payment.tenant_id, payment.id, CancellationReason.ORDER_CANCELLED, origin)
        for payment, origin in payments
    ]
    for (payment, origin), outcome in zip(payments, await cancel_payments(conn, cancellations), strict=True):
        if isinstance(outcome, Payment):
            effects[payment.tenant_id, payment.order_id or ""] = Cancelled.PAYMENT_CANCELLED
        else:
            settled.append((payment, origin))
    if not settled:
        return effects
    refunds = [
        RefundPayment(payment.tenant_id, payment.id, None, origin, reason=CancellationReason.ORDER_CANCELLED)
        for payment, origin in settled
    ]
    for (payment, _), refund in zip(settled, await refund_payments(conn, refunds), strict=True):
        effect = Cancelled.NOTHING_LEFT if isinstance(refund, Rejected) else Cancelled.PAYMENT_REFUNDED
        effects[payment.tenant_id, payment.order_id or ""] = effect
    return effects


def _key(command: PayOrder | CancelOrder) -> OrderKey:
    return command.tenant_id, command.order_id


def _new_payment(command: PayOrder) -> NewPayment:
    assert command.money is not None
    return NewPayment(uuid7(), command.money, customer_ref=f"order:{command.order_id}", order_id=command.order_id)
