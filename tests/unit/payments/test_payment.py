"""What can happen to a payment, and what is refused, by its status, its capture and its time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from payments_ledger.errors import (
    AlreadyCaptured,
    AlreadyMoved,
    AmountExceedsAuthorized,
    AmountExceedsRefundable,
    IllegalMove,
    LedgerError,
    NotCapturable,
    NotRefundable,
    PaymentExpired,
)
from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import (
    CancellationReason,
    Capture,
    CaptureMethod,
    Failure,
    Payment,
    Terms,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
CAPTURE_ID = UUID(int=2)
MANUAL = Terms(CaptureMethod.MANUAL)
OVER = CancellationReason.EXPIRED

type Step = Callable[[Payment], Any]

STEPS: dict[str, Step] = {
    "confirm": lambda payment: payment.confirm(NOON),
    "capture": lambda payment: payment.capture(CAPTURE_ID, None, NOON),
    "settle": lambda payment: payment.settle(NOON),
    "cancel": lambda payment: payment.cancel(None, NOON),
    "fail": lambda payment: payment.fail(Failure("card_declined"), NOON),
    "expire": lambda payment: payment.expire(NOON),
    "refund": lambda payment: payment.refund(None, NOON),
}


def payment(status: Status, terms: Terms = Terms()) -> Payment:  # noqa: B008
    return Payment("t", UUID(int=1), Money(100, "BRL"), status, 3, "CUST-1", None, NOON, NOON, terms)


def captured(status: Status, amount: int = 80) -> Payment:
    return replace(payment(status, MANUAL), captured=Capture(CAPTURE_ID, amount, NOON))


KINDS: dict[str, Payment] = {
    "created": payment(Status.CREATED),
    "authorized": payment(Status.AUTHORIZED),
    "settled": payment(Status.SETTLED),
    "failed": payment(Status.FAILED),
    "cancelled": payment(Status.CANCELLED),
    "manual, created": payment(Status.CREATED, MANUAL),
    "manual, authorized": payment(Status.AUTHORIZED, MANUAL),
    "manual, captured": captured(Status.AUTHORIZED),
    "manual, settled": captured(Status.SETTLED),
    "expired, created": payment(Status.CREATED, Terms(expires_at=NOON)),
    "expired, authorized": payment(Status.AUTHORIZED, Terms(expires_at=NOON)),
    "expired, manual, authorized": payment(Status.AUTHORIZED, Terms(CaptureMethod.MANUAL, NOON)),
    "expired, manual, captured": replace(captured(Status.AUTHORIZED), terms=Terms(CaptureMethod.MANUAL, NOON)),
    "expired, swept": replace(payment(Status.CANCELLED, Terms(expires_at=NOON)), cancellation_reason=OVER),
    "expires later": payment(Status.CREATED, Terms(expires_at=LATER)),
}

# What each step comes to for each kind: the status it leads to, or what it is refused with.
A, S, C, F = Status.AUTHORIZED, Status.SETTLED, Status.CANCELLED, Status.FAILED
NO, MOVED, DONE, OLD = IllegalMove, AlreadyMoved, AlreadyCaptured, PaymentExpired
COME_TO: dict[str, tuple[object, ...]] = {
    #                               confirm  capture        settle cancel fail  expire refund
    "created": (A, NotCapturable, NO, C, F, NO, NotRefundable),
    "authorized": (MOVED, NotCapturable, S, C, F, NO, NotRefundable),
    "settled": (NO, NotCapturable, MOVED, NO, NO, NO, S),
    "failed": (NO, NotCapturable, NO, NO, NO, NO, NotRefundable),
    "cancelled": (NO, NotCapturable, NO, NO, NO, NO, NotRefundable),
    "manual, created": (A, NotCapturable, NO, C, F, NO, NotRefundable),
    "manual, authorized": (MOVED, A, NO, C, F, NO, NotRefundable),
    "manual, captured": (MOVED, DONE, S, DONE, DONE, NO, NotRefundable),
    "manual, settled": (NO, DONE, MOVED, NO, NO, NO, S),
    "expired, created": (OLD, OLD, NO, OLD, OLD, C, NotRefundable),
    "expired, authorized": (MOVED, NotCapturable, S, C, F, NO, NotRefundable),
    "expired, manual, authorized": (OLD, OLD, NO, OLD, OLD, C, NotRefundable),
    "expired, manual, captured": (MOVED, DONE, S, DONE, DONE, NO, NotRefundable),
    "expired, swept": (OLD, OLD, NO, OLD, OLD, NO, NotRefundable),
    "expires later": (A, NotCapturable, NO, C, F, NO, NotRefundable),
}
CASES = [
    pytest.param(kind, step, outcome, id=f"{step} of {kind}")
    for kind, outcomes in COME_TO.items()
    for step, outcome in zip(STEPS, outcomes, strict=True)
]


@pytest.mark.parametrize(("kind", "step", "outcome"), CASES)
def test_what_each_step_comes_to(kind: str, step: str, outcome: object) -> None:
    if isinstance(outcome, type):
        with pytest.raises(LedgerError) as refusal:
            STEPS[step](KINDS[kind])
        assert refusal.type is outcome
        return
    done = STEPS[step](KINDS[kind])
    after = done[1] if isinstance(done, tuple) else done
    assert (after.status, after.version) == (outcome, 4)


def test_every_step_leaves_money_references_and_terms_as_they_were() -> None:
    for kind in KINDS.values():
        for step in STEPS.values():
            try:
                done = step(kind)
            except LedgerError:
                continue
            after = done[1] if isinstance(done, tuple) else done
            assert (after.money, after.customer_ref, after.terms, after.created_at) == (
                kind.money,
                kind.customer_ref,
                kind.terms,
                kind.created_at,
            )


def test_a_clock_that_was_set_back_does_not_take_a_payment_back_in_time() -> None:
    _, moved = payment(Status.CREATED).confirm(NOON - timedelta(minutes=10))
    assert moved.updated_at == NOON


def test_the_moves_say_their_reasons() -> None:
    _, cancelled = payment(Status.CREATED).cancel(CancellationReason.DUPLICATE, NOON)
    _, failed = payment(Status.CREATED).fail(Failure("card_declined", "Declined."), NOON)
    _, expired = KINDS["expired, created"].expire(NOON)
    assert cancelled.cancellation_reason is CancellationReason.DUPLICATE
    assert failed.failure == Failure("card_declined", "Declined.")
    assert expired.cancellation_reason is CancellationReason.EXPIRED


@pytest.mark.parametrize(("amount", "is_captured"), [(None, 100), (1, 1), (100, 100)])
def test_a_capture_takes_all_or_a_part(amount: int | None, is_captured: int) -> None:
    after = payment(Status.AUTHORIZED, MANUAL).capture(CAPTURE_ID, amount, LATER)
    assert after.captured == Capture(CAPTURE_ID, is_captured, LATER)
    assert (after.amount_captured, after.amount_capturable(LATER), after.amount_refundable) == (is_captured, 0, 0)


def test_no_more_is_captured_than_was_authorized() -> None:
    with pytest.raises(AmountExceedsAuthorized):
        payment(Status.AUTHORIZED, MANUAL).capture(CAPTURE_ID, 101, NOON)


def test_refunds_add_up_to_what_was_captured_and_no_further() -> None:
    given_back, after = captured(Status.SETTLED).refund(30, NOON)
    assert (given_back, after.amount_refunded, after.amount_refundable) == (30, 30, 50)
    with pytest.raises(AmountExceedsRefundable):
        after.refund(51, NOON)
    given_back, after = after.refund(None, NOON)
    assert (given_back, after.amount_refunded, after.amount_refundable) == (50, 80, 0)
    for amount in (None, 1):
        with pytest.raises(AmountExceedsRefundable):
            after.refund(amount, NOON)


@pytest.mark.parametrize(
    ("kind", "capturable", "is_captured", "refundable"),
    [
        ("created", 0, 0, 0),
        ("authorized", 0, 0, 0),
        ("settled", 0, 100, 100),
        ("manual, created", 0, 0, 0),
        ("manual, authorized", 100, 0, 0),
        ("manual, captured", 0, 80, 0),
        ("manual, settled", 0, 80, 80),
        ("expired, manual, authorized", 0, 0, 0),
        ("cancelled", 0, 0, 0),
    ],
)
def test_what_can_be_captured_and_refunded(kind: str, capturable: int, is_captured: int, refundable: int) -> None:
    of_kind = KINDS[kind]
    assert of_kind.amount_capturable(NOON) == capturable
    assert of_kind.amount_captured == is_captured
    assert of_kind.amount_refundable == refundable


def test_words_change_in_any_status_and_are_no_fact() -> None:
    for of_kind in KINDS.values():
        after = of_kind.annotate("Two tickets", {"seat": "7"}, LATER)
        assert (after.description, after.metadata, after.updated_at) == ("Two tickets", {"seat": "7"}, LATER)
        assert (after.version, after.status) == (of_kind.version, of_kind.status)
