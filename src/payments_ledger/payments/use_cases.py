"""What can be done with payments. Each use case takes a batch of commands and returns an outcome for each.

All have one shape: read and lock, decide by the pure rules (`payment.py`), and past that point only write.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.commit.audit import AuditRecord, Origin, change, defer_audit
from payments_ledger.commit.events import defer_events
from payments_ledger.errors import Invalid, InvalidExpiry, LedgerError, PaymentNotFound, Rejected
from payments_ledger.ledger.use_cases import post_entries
from payments_ledger.money import Money, format_amount, parse_money, require_in_use
from payments_ledger.payments import queries
from payments_ledger.payments.events import event_of
from payments_ledger.payments.lifecycle import CAPTURE, CREATION, Fact, Move, Status
from payments_ledger.payments.payment import (
    EXPIRY_MAX,
    USUAL_TERMS,
    CancellationReason,
    Failure,
    Payment,
    Terms,
)
from payments_ledger.payments.postings import settlement
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.metadata import NO_METADATA, merge_metadata


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment intent to create, under an id that the caller has chosen (UUIDv7); an order has at most one."""

    id: UUID
    money: Money
    customer_ref: str
    order_id: str | None = None
    terms: Terms = USUAL_TERMS
    description: str | None = None
    metadata: Mapping[str, str] = NO_METADATA


@dataclass(frozen=True, slots=True)
class CreatePayments:
    """Creates one payment intent or many; one that was refused beforehand keeps its place."""

    tenant_id: str
    payments: tuple[NewPayment | Rejected, ...]
    origin: Origin


class PaymentCommand(Protocol):
    """What every command about one payment says."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def payment_id(self) -> UUID: ...

    @property
    def origin(self) -> Origin:
        """Who asks for it."""


@dataclass(frozen=True, slots=True)
class ConfirmPayment:
    """From CREATED to AUTHORIZED."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class CapturePayment:
    """`amount` in major units of the payment's currency, None being all that was authorized."""

    tenant_id: str
    payment_id: UUID
    amount: Decimal | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class SettlePayment:
    """From AUTHORIZED to SETTLED, with the entry in the ledger."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class CancelPayment:
    """From CREATED or AUTHORIZED to CANCELLED: before anything has been captured or posted."""

    tenant_id: str
    payment_id: UUID
    reason: CancellationReason | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class FailPayment:
    """From CREATED or AUTHORIZED to FAILED: before anything has been captured or posted."""

    tenant_id: str
    payment_id: UUID
    failure: Failure
    origin: Origin


@dataclass(frozen=True, slots=True)
class ExpirePayment:
    """To CANCELLED, since its time has run out."""

    tenant_id: str
    payment_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class AnnotatePayment:
    """Changes `description` and metadata, each unless None; an empty description or a null value removes."""

    tenant_id: str
    payment_id: UUID
    description: str | None
    metadata: Mapping[str, str | None] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Change:
    """A payment as it is to be written after a change, what it was before, and who asked for it."""

    what: Move | Fact
    before: Payment | None
    payment: Payment
    origin: Origin


async def create_payments(conn: Connection, commands: Sequence[CreatePayments]) -> list[list[Payment | Rejected]]:
    """CREATED payments, with payment.intent.created in the outbox: an outcome for each payment of each command.

    Rejected: WithdrawnCurrency, Invalid for an expiry that is not ahead, and what was refused beforehand.
    """
    now = await transaction_time(conn)
    changes: list[_Change] = []
    outcomes: list[list[Payment | Rejected]] = []
    for command in commands:
        created = [
            wanted if isinstance(wanted, Rejected) else _created(command.tenant_id, wanted, now)
            async for wanted in in_portions(command.payments)
        ]
        changes += [
            _Change(CREATION, None, payment, command.origin) for payment in created if isinstance(payment, Payment)
        ]
        outcomes.append(created)
    if changes:
        await queries.insert_payments(conn, [change.payment for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes


async def confirm_payments(conn: Connection, commands: Sequence[ConfirmPayment]) -> list[Payment | Rejected]:
    """CREATED → AUTHORIZED, with payment.authorized in the outbox.

    Rejected: PaymentNotFound, PaymentExpired, IllegalMove.
    """
    outcomes, _ = await _change_payments(conn, commands, lambda payment, _, now: payment.confirm(now))
    return outcomes


async def capture_payments(conn: Connection, commands: Sequence[CapturePayment]) -> list[Payment | Rejected]:
    """A capture for each manual AUTHORIZED payment, with payment.capture_requested in the outbox; settlement follows.

    Rejected: PaymentNotFound, InvalidAmount, AlreadyCaptured, PaymentExpired, NotCapturable, AmountExceedsAuthorized.
    """
    outcomes, _ = await _change_payments(conn, commands, _capture)
    return outcomes


async def settle_payments(conn: Connection, commands: Sequence[SettlePayment]) -> list[Payment | Rejected]:
    """AUTHORIZED → SETTLED with its ledger entry, and payment.settled in the outbox.

    Rejected: PaymentNotFound, IllegalMove (a manual one waits for its capture), and AlreadyMoved for a repetition,
    which posts nothing again.
    """
    outcomes, changes = await _change_payments(conn, commands, lambda payment, _, now: payment.settle(now))
    if changes:
        await post_entries(conn, [settlement(change.payment, change.origin.trace.correlation_id) for change in changes])
    return outcomes


async def cancel_payments(conn: Connection, commands: Sequence[CancelPayment]) -> list[Payment | Rejected]:
    """CREATED or AUTHORIZED → CANCELLED, with payment.cancelled in the outbox.

    Rejected: PaymentNotFound, AlreadyCaptured, PaymentExpired, IllegalMove (it is SETTLED: refund it).
    """
    outcomes, _ = await _change_payments(
        conn, commands, lambda payment, command, now: payment.cancel(command.reason, now)
    )
    return outcomes


async def fail_payments(conn: Connection, commands: Sequence[FailPayment]) -> list[Payment | Rejected]:
    """CREATED or AUTHORIZED → FAILED, with payment.failed in the outbox.

    Rejected: PaymentNotFound, AlreadyCaptured, PaymentExpired, IllegalMove.
    """
    outcomes, _ = await _change_payments(
        conn, commands, lambda payment, command, now: payment.fail(command.failure, now)
    )
    return outcomes


async def expire_payments(conn: Connection, commands: Sequence[ExpirePayment]) -> list[Payment | Rejected]:
    """To CANCELLED with the reason expired, and payment.cancelled in the outbox.

    Rejected: PaymentNotFound, IllegalMove (its time has not run out, or it was confirmed or captured in time).
    """
    outcomes, _ = await _change_payments(conn, commands, lambda payment, _, now: payment.expire(now))
    return outcomes


async def annotate_payments(conn: Connection, commands: Sequence[AnnotatePayment]) -> list[Payment | Rejected]:
    """The payments with their new descriptions and metadata; no fact and no event, but an audit row.

    Rejected: PaymentNotFound, Invalid (too many pairs of metadata once merged).
    """
    payments = await lock_payments(conn, commands)
    now = await transaction_time(conn)
    outcomes: list[Payment | Rejected] = []
    changed: dict[tuple[str, UUID], Payment] = {}
    audit: list[AuditRecord] = []
    for command in commands:
        key = (command.tenant_id, command.payment_id)
        before = payments.get(key)
        if before is None:
            outcomes.append(Rejected(PaymentNotFound()))
            continue
        try:
            after = _annotated(before, command, now)
        except Invalid as error:
            outcomes.append(Rejected(error))
            continue
        payments[key] = changed[key] = after
        outcomes.append(after)
        audit.append(
            AuditRecord(
                tenant_id=after.tenant_id,
                origin=command.origin,
                action="payment.annotate",
                target=str(after.id),
                detail=change(_words(before), _words(after)) | {"amount": str(after.money)},
            )
        )
    if changed:
        await queries.save_annotations(conn, list(changed.values()))
        defer_audit(conn, audit)
    return outcomes


async def lock_payments(conn: Connection, commands: Sequence[PaymentCommand]) -> dict[tuple[str, UUID], Payment]:
    """The payments that the commands name and that exist, locked in sorted order."""
    return await queries.lock_payments(conn, {(command.tenant_id, command.payment_id) for command in commands})


def payment_audit(
    action: str, before: Payment | None, payment: Payment, origin: Origin, **more: str | None
) -> AuditRecord:
    """The audit row of a change of a payment; `more` is what the change says besides the statuses."""
    return AuditRecord(
        tenant_id=payment.tenant_id,
        origin=origin,
        action=action,
        target=str(payment.id),
        detail={
            "before": {"status": before.status} if before else None,
            "after": {"status": payment.status},
            "amount": str(payment.money),
            **more,
        },
    )


def _created(tenant_id: str, wanted: NewPayment, now: datetime) -> Payment | Rejected:
    try:
        require_in_use(wanted.money.currency, now.astimezone(UTC).date())
        _require_ahead(wanted.terms.expires_at, now)
    except LedgerError as error:
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
        terms=wanted.terms,
        description=wanted.description,
        metadata=wanted.metadata,
    )


def _require_ahead(expires_at: datetime | None, now: datetime) -> None:
    """Asked at execution, not when the request is read: a repetition may come after the payment's time."""
    if expires_at is None:
        return
    if expires_at <= now:
        raise InvalidExpiry("must be in the future")
    if expires_at - now > EXPIRY_MAX:
        raise InvalidExpiry(f"must be at most {EXPIRY_MAX.days} days ahead")


def _capture(payment: Payment, command: CapturePayment, now: datetime) -> tuple[Fact, Payment]:
    money = None if command.amount is None else parse_money(command.amount, payment.money.currency)
    return CAPTURE, payment.capture(uuid7(), money.amount if money else None, now)


def _annotated(payment: Payment, command: AnnotatePayment, now: datetime) -> Payment:
    description = payment.description if command.description is None else command.description or None
    metadata = payment.metadata if command.metadata is None else merge_metadata(payment.metadata, command.metadata)
    return payment.annotate(description, metadata, now)


def _words(payment: Payment) -> dict[str, object]:
    return {"description": payment.description, "metadata": dict(payment.metadata)}


async def _change_payments[C: PaymentCommand](
    conn: Connection,
    commands: Sequence[C],
    decide: Callable[[Payment, C, datetime], tuple[Move | Fact, Payment]],
) -> tuple[list[Payment | Rejected], list[_Change]]:
    """Locks the payments, has the rules decide, and writes what has changed, with its events and audit rows.

    An outcome for each command, and the changes. Several commands may name one payment.
    """
    payments = await lock_payments(conn, commands)
    now = await transaction_time(conn)
    outcomes: list[Payment | Rejected] = []
    changes: list[_Change] = []
    for command in commands:
        key = (command.tenant_id, command.payment_id)
        before = payments.get(key)
        if before is None:
            outcomes.append(Rejected(PaymentNotFound()))
            continue
        try:
            what, payment = decide(before, command, now)
        except LedgerError as error:
            outcomes.append(Rejected(error))
            continue
        payments[key] = payment
        outcomes.append(payment)
        changes.append(_Change(what, before, payment, command.origin))
    if changes:
        await queries.save_payments(conn, [change.payment for change in changes])
        await _defer_events_and_audit(conn, changes)
    return outcomes, changes


async def _defer_events_and_audit(conn: Connection, changes: Sequence[_Change]) -> None:
    """Has the event and the audit row of each change written just before the COMMIT."""
    defer_events(
        conn, [event_of(change.what, change.payment, change.origin.trace) async for change in in_portions(changes)]
    )
    defer_audit(conn, [_audit(change) async for change in in_portions(changes)])


def _audit(change: _Change) -> AuditRecord:
    return payment_audit(change.what.action, change.before, change.payment, change.origin, **_more(change))


def _more(change: _Change) -> dict[str, str | None]:
    """What the audit row says besides the statuses."""
    payment = change.payment
    if change.what is CAPTURE and payment.captured:
        captured = format_amount(payment.captured.amount, payment.money.currency)
        return {"capture_id": str(payment.captured.id), "amount_captured": captured}
    if payment.status is Status.CANCELLED:
        return {"cancellation_reason": payment.cancellation_reason}
    if payment.status is Status.FAILED and payment.failure:
        return {"failure_code": payment.failure.code}
    return {}
