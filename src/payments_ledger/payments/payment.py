"""A payment intent as a value, and what can happen to it: the rules, without any I/O.

Each rule returns the payment as it is after that, or raises the refusal that its client reads. All times are those of
the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from payments_ledger.errors import (
    AlreadyCaptured,
    AlreadyMoved,
    AmountExceedsAuthorized,
    AmountExceedsRefundable,
    IllegalMove,
    NotCapturable,
    NotRefundable,
    PaymentExpired,
)
from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Move, Status, find_move
from payments_ledger.validation.metadata import NO_METADATA

# A card scheme's authorization ends long before that; beyond it a date is a slip.
EXPIRY_MAX = timedelta(days=366)


class CaptureMethod(StrEnum):
    """Whether the worker settles a payment once it is authorized, or once somebody has captured it."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


class CancellationReason(StrEnum):
    """Why a payment was cancelled; clients name one of the first four."""

    REQUESTED_BY_CUSTOMER = "requested_by_customer"
    DUPLICATE = "duplicate"
    FRAUDULENT = "fraudulent"
    ABANDONED = "abandoned"
    EXPIRED = "expired"
    ORDER_CANCELLED = "order_cancelled"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed when a payment is created, besides its money and references."""

    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    expires_at: datetime | None = None


USUAL_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Capture:
    """That `amount` minor units of an authorization are to be settled; the rest is released."""

    id: UUID
    amount: int
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a payment failed: a code for programs (`[a-z0-9_]{1,64}`) and a message for people."""

    code: str
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment intent of one tenant; `version` counts its moves and facts from 1 (created). Amounts: minor units."""

    tenant_id: str
    id: UUID
    money: Money
    status: Status
    version: int
    customer_ref: str
    order_id: str | None
    created_at: datetime
    updated_at: datetime
    terms: Terms = USUAL_TERMS
    description: str | None = None
    metadata: Mapping[str, str] = NO_METADATA
    captured: Capture | None = None
    amount_refunded: int = 0
    cancellation_reason: CancellationReason | None = None
    failure: Failure | None = None

    @property
    def is_manual(self) -> bool:
        return self.terms.capture_method is CaptureMethod.MANUAL

    @property
    def awaits_capture(self) -> bool:
        """Whether it is up to somebody to capture it, as long as it has not expired."""
        return self.is_manual and self.status is Status.AUTHORIZED and self.captured is None

    @property
    def amount_captured(self) -> int:
        """What was captured of a manual payment; what was settled of an automatic one."""
        if self.is_manual:
            return self.captured.amount if self.captured else 0
        return self.money.amount if self.status is Status.SETTLED else 0

    @property
    def amount_refundable(self) -> int:
        """What is left to give back; nothing before it is SETTLED."""
        return self.amount_captured - self.amount_refunded if self.status is Status.SETTLED else 0

    def amount_capturable(self, at: datetime) -> int:
        """What can be captured at that time: all of it or nothing."""
        return self.money.amount if self.awaits_capture and not self.has_expired(at) else 0

    def has_expired(self, at: datetime) -> bool:
        """Whether its time has run out, swept or not.

        It binds an automatic payment until its confirmation, a manual one until its capture.
        """
        if self.cancellation_reason is CancellationReason.EXPIRED:
            return True
        is_bound = self.status is Status.CREATED or self.awaits_capture
        return is_bound and self.terms.expires_at is not None and self.terms.expires_at <= at

    def confirm(self, at: datetime) -> tuple[Move, "Payment"]:
        """CREATED → AUTHORIZED. Raises PaymentExpired, AlreadyMoved or IllegalMove."""
        self._refuse_expired(at)
        return self._move(Status.AUTHORIZED, at)

    def settle(self, at: datetime) -> tuple[Move, "Payment"]:
        """AUTHORIZED → SETTLED, of a manual payment what was captured. Raises AlreadyMoved or IllegalMove."""
        if self.awaits_capture:
            raise IllegalMove("The payment waits for its capture.")
        return self._move(Status.SETTLED, at)

    def capture(self, capture_id: UUID, amount: int | None, at: datetime) -> "Payment":
        """With a capture of `amount` minor units, None being all of it.

        Raises AlreadyCaptured, PaymentExpired, NotCapturable or AmountExceedsAuthorized, in this order.
        """
        if self.captured:
            raise AlreadyCaptured
        self._refuse_expired(at)
        if not self.awaits_capture:
            raise NotCapturable
        if amount is not None and amount > self.money.amount:
            raise AmountExceedsAuthorized
        captured = Capture(capture_id, self.money.amount if amount is None else amount, at)
        return self._changed(at, captured=captured)

    def cancel(self, reason: CancellationReason | None, at: datetime) -> tuple[Move, "Payment"]:
        """CREATED or AUTHORIZED → CANCELLED. Raises AlreadyCaptured, PaymentExpired or IllegalMove."""
        move, payment = self._give_up(Status.CANCELLED, at)
        return move, replace(payment, cancellation_reason=reason)

    def fail(self, failure: Failure, at: datetime) -> tuple[Move, "Payment"]:
        """CREATED or AUTHORIZED → FAILED. Raises AlreadyCaptured, PaymentExpired or IllegalMove."""
        move, payment = self._give_up(Status.FAILED, at)
        return move, replace(payment, failure=failure)

    def expire(self, at: datetime) -> tuple[Move, "Payment"]:
        """To CANCELLED, once its time has run out. Raises IllegalMove if it has not, or binds no more."""
        if self.status is Status.CANCELLED or not self.has_expired(at):
            raise IllegalMove("The payment has not expired.")
        move, payment = self._move(Status.CANCELLED, at)
        return move, replace(payment, cancellation_reason=CancellationReason.EXPIRED)

    def refund(self, amount: int | None, at: datetime) -> tuple[int, "Payment"]:
        """The minor units to give back, None being all that is left, and the payment after that.

        Raises NotRefundable or AmountExceedsRefundable.
        """
        self.require_settled()
        given_back = self.amount_refundable if amount is None else amount
        if not 0 < given_back <= self.amount_refundable:
            raise AmountExceedsRefundable
        return given_back, self._changed(at, amount_refunded=self.amount_refunded + given_back)

    def require_settled(self) -> None:
        """Raises NotRefundable: before that there is nothing to give back."""
        if self.status is not Status.SETTLED:
            raise NotRefundable

    def annotate(self, description: str | None, metadata: Mapping[str, str], at: datetime) -> "Payment":
        """With another description and other metadata. This is no fact, and raises nothing."""
        return replace(self, description=description, metadata=metadata, updated_at=max(at, self.updated_at))

    def _give_up(self, to: Status, at: datetime) -> tuple[Move, "Payment"]:
        if self.captured and self.status is Status.AUTHORIZED:
            raise AlreadyCaptured
        self._refuse_expired(at)
        if find_move(self.status, to) is None:
            raise IllegalMove(f"The payment is {self.status} and cannot become {to}.")
        return self._move(to, at)

    def _refuse_expired(self, at: datetime) -> None:
        if self.has_expired(at):
            raise PaymentExpired

    def _move(self, to: Status, at: datetime) -> tuple[Move, "Payment"]:
        """Raises AlreadyMoved or IllegalMove."""
        if to is self.status:
            raise AlreadyMoved(f"The payment is {self.status} already.")
        move = find_move(self.status, to)
        if move is None:
            raise IllegalMove(f"The payment is {self.status} and cannot become {to}.")
        return move, self._changed(at, status=to)

    def _changed(self, at: datetime, **fields: Any) -> "Payment":
        """With other `fields`, one version later. A clock that was set back does not take the payment's time back."""
        return replace(self, version=self.version + 1, updated_at=max(at, self.updated_at), **fields)
