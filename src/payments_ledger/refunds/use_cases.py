"""Giving money back: refunds of settled payments, each an entry that reverses a part of the settlement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.commit.events import defer_events
from payments_ledger.errors import LedgerError, PaymentNotFound, ReferenceTaken, Rejected
from payments_ledger.ledger.use_cases import post_entries
from payments_ledger.money import Money, parse_money
from payments_ledger.payments.lifecycle import REFUND
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import save_payments
from payments_ledger.payments.use_cases import lock_payments, payment_audit
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.refunds import queries
from payments_ledger.refunds.events import event_of
from payments_ledger.refunds.postings import reversal
from payments_ledger.refunds.refund import Refund
from payments_ledger.validation.metadata import NO_METADATA


@dataclass(frozen=True, slots=True)
class RefundPayment:
    """Gives back `amount` of a settled payment, in major units of its currency, None being all that is left."""

    tenant_id: str
    payment_id: UUID
    amount: Decimal | None
    origin: Origin
    reason: str | None = None
    reference: str | None = None
    metadata: Mapping[str, str] = NO_METADATA


@dataclass(frozen=True, slots=True)
class _Change:
    """A refund to write, and its payment after it."""

    refund: Refund
    payment: Payment
    origin: Origin


async def refund_payments(conn: Connection, commands: Sequence[RefundPayment]) -> list[Refund | Rejected]:
    """A refund with its reversing entry for each, and payment.refunded in the outbox; the payment stays SETTLED.

    Rejected: PaymentNotFound, InvalidAmount, NotRefundable, ReferenceTaken, AmountExceedsRefundable, in this order.
    """
    # Two refunds at once meet at the locked payment: the later one finds what is left by then.
    payments = await lock_payments(conn, commands)
    taken = await queries.find_taken_references(
        conn, {(command.tenant_id, command.reference) for command in commands if command.reference}
    )
    now = await transaction_time(conn)
    outcomes: list[Refund | Rejected] = []
    changes: list[_Change] = []
    for command in commands:
        key = (command.tenant_id, command.payment_id)
        try:
            change = _decide(payments.get(key), command, taken, now)
        except LedgerError as error:
            outcomes.append(Rejected(error))
            continue
        payments[key] = change.payment
        if command.reference:
            taken.add((command.tenant_id, command.reference))
        outcomes.append(change.refund)
        changes.append(change)
    if changes:
        await _write(conn, changes)
    return outcomes


def _decide(payment: Payment | None, command: RefundPayment, taken: set[tuple[str, str]], now: datetime) -> _Change:
    if payment is None:
        raise PaymentNotFound
    currency = payment.money.currency
    wanted = None if command.amount is None else parse_money(command.amount, currency).amount
    payment.require_settled()
    if command.reference and (command.tenant_id, command.reference) in taken:
        raise ReferenceTaken
    amount, after = payment.refund(wanted, now)
    refund = Refund(
        tenant_id=payment.tenant_id,
        id=uuid7(),
        payment_id=payment.id,
        money=Money(amount, currency),
        created_at=now,
        reason=command.reason,
        reference=command.reference,
        metadata=command.metadata,
    )
    return _Change(refund, after, command.origin)


async def _write(conn: Connection, changes: Sequence[_Change]) -> None:
    # Of a payment with several refunds the last one has the sum of all.
    payments = {(change.payment.tenant_id, change.payment.id): change.payment for change in changes}
    await save_payments(conn, list(payments.values()))
    await queries.insert_refunds(conn, [change.refund for change in changes])
    await post_entries(conn, [reversal(change.refund, change.origin.trace.correlation_id) for change in changes])
    defer_events(conn, [event_of(change.refund, change.payment, change.origin.trace) for change in changes])
    defer_audit(conn, [_audit(change) for change in changes])


def _audit(change: _Change) -> AuditRecord:
    refund = change.refund
    return payment_audit(
        REFUND.action,
        change.payment,
        change.payment,
        change.origin,
        refund_id=str(refund.id),
        refund_amount=str(refund.money),
        reference=refund.reference,
    )
