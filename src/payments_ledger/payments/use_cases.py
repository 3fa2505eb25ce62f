"""What can be done with payments. Each use case takes a batch of commands and returns an outcome for each.

All have one shape: read and lock, decide by the pure rules, and past that point only write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.commit.events import defer_events
from payments_ledger.errors import AlreadyRefunded, IllegalMove, PaymentNotFound, Rejected, WithdrawnCurrency
from payments_ledger.ledger.entry import Entry
from payments_ledger.ledger.queries import sources_with_entry
from payments_ledger.ledger.use_cases import post_entries
from payments_ledger.money import Money, require_in_use
from payments_ledger.payments import queries
from payments_ledger.payments.events import event_of, refund_event_of
from payments_ledger.payments.lifecycle import CREATION, Move, Status
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.postings import REFUND, refund, settlement
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.process.portions import in_portions


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment intent to create, under an id that the caller has chosen (UUIDv7); an order has at most one."""

    id: UUID
    money: Money
    customer_ref: str
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class CreatePayments:
    """Creates one payment intent or many; one that was refused beforehand keeps its place."""

    tenant_id: str
    payments: tuple[NewPayment | Rejected, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class ConfirmPayment:
    """From CREATED to AUTHORIZED."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class SettlePayment:
    """From AUTHORIZED to SETTLED, with the entry in the ledger."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class CancelPayment:
    """From CREATED or AUTHORIZED to CANCELLED: before anything has been posted."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class RefundPayment:
    """Gives back all of a settled payment."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Change:
    """A payment as it is to be written after a move, and who asked for it."""

    move: Move
    payment: Payment
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Refund:
    payment: Payment
    entry: Entry
    origin: Origin


async def create_payments(conn: Connection, commands: Sequence[CreatePayments]) -> list[list[Payment | Rejected]]:
    """CREATED payments, with payment.intent.created in the outbox: an outcome for each payment of each command.

    Rejected: WithdrawnCurrency, and what was refused beforehand.
    """
    now = await transaction_time(conn)
    changes: list[_Change] = []
    outcomes: list[list[Payment | Rejected]] = []
    for command in commands:
        created = [
            wanted if isinstance(wanted, Rejected) else _created(command.tenant_id, wanted, now)
            async for wanted in in_portions(command.payments)
        ]
        changes += [_Change(CREATION, payment, command.origin) for payment in created if isinstance(payment, Payment)]
        outcomes.append(created)
    if changes:
        await queries.insert_payments(conn, [change.payment for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes


async def confirm_payments(conn: Connection, commands: Sequence[ConfirmPayment]) -> list[Payment | Rejected]:
    """CREATED → AUTHORIZED, with payment.authorized in the outbox; Rejected: PaymentNotFound, IllegalMove."""
    outcomes, changes = await _lock_and_move(conn, commands, Status.AUTHORIZED)
    if changes:
        await queries.save_moves(conn, [change.payment for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes


async def settle_payments(conn: Connection, commands: Sequence[SettlePayment]) -> list[Payment | Rejected]:
    """AUTHORIZED → SETTLED with its ledger entry, and payment.settled in the outbox.

    Rejected: PaymentNotFound, IllegalMove, and AlreadyMoved for a repetition, which posts nothing again.
    """
    outcomes, changes = await _lock_and_move(conn, commands, Status.SETTLED)
    if changes:
        await queries.save_moves(conn, [change.payment for change in changes])
        await post_entries(conn, [_settlement_entry(change) for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes


async def cancel_payments(conn: Connection, commands: Sequence[CancelPayment]) -> list[Payment | Rejected]:
    """CREATED or AUTHORIZED → CANCELLED, with payment.cancelled in the outbox.

    Rejected: PaymentNotFound, IllegalMove (it is SETTLED: refund it), AlreadyMoved.
    """
    outcomes, changes = await _lock_and_move(conn, commands, Status.CANCELLED)
    if changes:
        await queries.save_moves(conn, [change.payment for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes


async def refund_payments(conn: Connection, commands: Sequence[RefundPayment]) -> list[Entry | Rejected]:
    """A reversing entry for each SETTLED payment, and payment.refunded in the outbox; the payment stays SETTLED.

    Rejected: PaymentNotFound, IllegalMove (it is not SETTLED), and AlreadyRefunded for a repetition.
    """
    keys = {(command.tenant_id, command.payment_id) for command in commands}
    # The locked payment is what two refunds at once meet at: the second one then finds the entry of the first.
    payments = await queries.lock_payments(conn, keys)
    refunded = await sources_with_entry(conn, keys, REFUND)
    now = await transaction_time(conn)
    outcomes: list[Entry | Rejected] = []
    refunds: list[_Refund] = []
    for command in commands:
        key = (command.tenant_id, command.payment_id)
        if key not in payments:
            outcomes.append(Rejected(PaymentNotFound()))
        elif payments[key].status is not Status.SETTLED:
            outcomes.append(Rejected(IllegalMove(f"The payment is {payments[key].status} and cannot be refunded.")))
        elif key in refunded:
            outcomes.append(Rejected(AlreadyRefunded()))
        else:
            refunded.add(key)
            entry = _refund_entry(payments[key], command.origin)
            refunds.append(_Refund(payments[key], entry, command.origin))
            outcomes.append(entry)
    if refunds:
        await post_entries(conn, [refund.entry for refund in refunds])
        defer_events(
            conn, [refund_event_of(refund.payment, refund.entry.id, refund.origin.trace, now) for refund in refunds]
        )
        defer_audit(
            conn, [_audit("payment.refund", refund.payment, refund.origin, refund.payment.status) for refund in refunds]
        )
    return outcomes


def _created(tenant_id: str, wanted: NewPayment, now: datetime) -> Payment | Rejected:
    try:
        require_in_use(wanted.money.currency, now.astimezone(UTC).date())
    except WithdrawnCurrency as error:
        return Rejected(error)
    return Payment(
        tenant_id=tenant_id,
        id=wanted.id,
        money=wanted.money,
        status=CREATION.after,
        version=1,
        customer_ref=wanted.customer_ref,
        order_id=wanted.order_id,
        created_at=now,
        updated_at=now,
    )


def _settlement_entry(change: _Change) -> Entry:
    payment = change.payment
    return settlement(
        tenant_id=payment.tenant_id,
        payment_id=payment.id,
        money=payment.money,
        correlation_id=change.origin.trace.correlation_id,
    )


def _refund_entry(payment: Payment, origin: Origin) -> Entry:
    return refund(
        tenant_id=payment.tenant_id,
        payment_id=payment.id,
        money=payment.money,
        correlation_id=origin.trace.correlation_id,
    )


async def _lock_and_move(
    conn: Connection,
    commands: Sequence[ConfirmPayment] | Sequence[SettlePayment] | Sequence[CancelPayment],
    to: Status,
) -> tuple[list[Payment | Rejected], list[_Change]]:
    """An outcome for each command, and the changes to write. Several commands may name one payment."""
    payments = await queries.lock_payments(conn, {(command.tenant_id, command.payment_id) for command in commands})
    now = await transaction_time(conn)
    outcomes: list[Payment | Rejected] = []
    changes: list[_Change] = []
    for command in commands:
        key = (command.tenant_id, command.payment_id)
        if key not in payments:
            outcomes.append(Rejected(PaymentNotFound()))
            continue
        try:
            move, payment = payments[key].move(to, now)
        except IllegalMove as error:
            outcomes.append(Rejected(error))
            continue
        payments[key] = payment
        outcomes.append(payment)
        changes.append(_Change(move, payment, command.origin))
    return outcomes, changes


async def _defer_events_and_audit(conn: Connection, changes: Sequence[_Change]) -> None:
    """Has the event and the audit row of each change written just before the COMMIT."""
    defer_events(
        conn, [event_of(change.move, change.payment, change.origin.trace) async for change in in_portions(changes)]
    )
    defer_audit(
        conn,
        [
            _audit(change.move.action, change.payment, change.origin, change.move.before)
            async for change in in_portions(changes)
        ],
    )


def _audit(action: str, payment: Payment, origin: Origin, before: Status | None) -> AuditRecord:
    return AuditRecord(
        tenant_id=payment.tenant_id,
        origin=origin,
        action=action,
        target=str(payment.id),
        detail={
            "before": {"status": before} if before else None,
            "after": {"status": payment.status},
            "amount": str(payment.money),
        },
    )
