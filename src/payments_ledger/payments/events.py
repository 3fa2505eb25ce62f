"""The events of a payment, as they go out and come in: flat JSON, snake_case, amounts as decimal strings."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, WithJsonSchema
from uuid_utils.compat import uuid7

from payments_ledger.commit.events import Event
from payments_ledger.money import format_amount
from payments_ledger.payments.lifecycle import (
    CAPTURE,
    PAYMENT_AUTHORIZED,
    PAYMENT_CAPTURE_REQUESTED,
    PAYMENT_SETTLED,
    Fact,
    Move,
    Status,
)
from payments_ledger.payments.payment import CaptureMethod, Payment
from payments_ledger.telemetry.tracing import Trace


class PaymentEvent(BaseModel):
    """The body of each payment event; `amount` is what was authorized, but in payment.settled what was settled.

    The orders service reads order_id and tenant_id of payment.settled.
    """

    payment_intent_id: UUID
    tenant_id: str
    status: Annotated[str, WithJsonSchema({"type": "string", "enum": [*Status]})]
    amount: str
    currency: str
    customer_ref: str
    order_id: str | None
    correlation_id: str
    occurred_at: datetime


class ManualPaymentAuthorized(PaymentEvent):
    """The body of payment.authorized where nothing settles the payment before somebody captures it."""

    capture_method: str


class PaymentCaptureRequested(PaymentEvent):
    """The body of payment.capture_requested: the worker settles what was captured, and the rest is released."""

    amount_captured: str
    amount_released: str


class PaymentSettled(PaymentEvent):
    """The body of payment.settled: `amount` is in the books."""

    amount_authorized: str


class PaymentFailed(PaymentEvent):
    """The body of payment.failed."""

    failure_code: str | None
    failure_message: str | None


class PaymentCancelled(PaymentEvent):
    """The body of payment.cancelled."""

    cancellation_reason: str | None


# What payment.authorized says of a payment that nobody need be reminded of.
WAITS_FOR_ITS_CAPTURE = {"capture_method": CaptureMethod.MANUAL.value}

# By type of event, where it says more than PaymentEvent.
BODIES: Mapping[str, type[PaymentEvent]] = {
    PAYMENT_CAPTURE_REQUESTED: PaymentCaptureRequested,
    PAYMENT_SETTLED: PaymentSettled,
    "payment.failed": PaymentFailed,
    "payment.cancelled": PaymentCancelled,
}


def event_of(change: Move | Fact, payment: Payment, trace: Trace) -> Event:
    """The event of what has just happened to the payment; its sequence is the payment's version."""
    more = _more(change, payment)
    model = BODIES.get(change.event) or (ManualPaymentAuthorized if "capture_method" in more else PaymentEvent)
    return payment_event(change.event, model, payment, trace, more)


def _more(change: Move | Fact, payment: Payment) -> dict[str, Any]:
    """What the event says besides what all say."""
    if change.event == PAYMENT_SETTLED:
        settled = format_amount(payment.amount_captured, payment.money.currency)
        return {"amount": settled, "amount_authorized": format_amount(payment.money.amount, payment.money.currency)}
    if change is CAPTURE:
        captured, currency = payment.amount_captured, payment.money.currency
        released = payment.money.amount - captured
        return {
            "amount_captured": format_amount(captured, currency),
            "amount_released": format_amount(released, currency),
        }
    if change.event == PAYMENT_AUTHORIZED and payment.is_manual:
        return dict(WAITS_FOR_ITS_CAPTURE)
    if payment.status is Status.CANCELLED:
        return {"cancellation_reason": payment.cancellation_reason}
    if payment.status is Status.FAILED:
        failure = payment.failure
        return {
            "failure_code": failure.code if failure else None,
            "failure_message": failure.message if failure else None,
        }
    return {}


def payment_event(
    type_: str, model: type[PaymentEvent], payment: Payment, trace: Trace, more: Mapping[str, Any]
) -> Event:
    """An event about the payment, with `more` in its body than every event of a payment says."""
    body = {
        "payment_intent_id": payment.id,
        "tenant_id": payment.tenant_id,
        "status": payment.status.value,
        "amount": format_amount(payment.money.amount, payment.money.currency),
        "currency": payment.money.currency,
        "customer_ref": payment.customer_ref,
        "order_id": payment.order_id,
        "correlation_id": trace.correlation_id,
        "occurred_at": payment.updated_at,
        **more,
    }
    return Event(
        tenant_id=payment.tenant_id,
        id=uuid7(),
        type=type_,
        aggregate_id=payment.id,
        sequence=payment.version,
        payload=model.model_construct(**body).model_dump_json(),
        trace=trace,
    )
