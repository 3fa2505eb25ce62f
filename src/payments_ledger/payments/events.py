"""The events of a payment, as they go out and come in: flat JSON, snake_case, amounts as decimal strings."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, WithJsonSchema
from uuid_utils.compat import uuid7

from payments_ledger.commit.events import Event
from payments_ledger.money import format_amount
from payments_ledger.payments.lifecycle import Move, Status
from payments_ledger.payments.payment import Payment
from payments_ledger.telemetry.tracing import Trace

PAYMENT_REFUNDED = "payment.refunded"


class PaymentEvent(BaseModel):
    """The body of each payment event; the orders service reads order_id and tenant_id of payment.settled."""

    payment_intent_id: UUID
    tenant_id: str
    status: Annotated[str, WithJsonSchema({"type": "string", "enum": [*Status]})]
    amount: str
    currency: str
    customer_ref: str
    order_id: str | None
    correlation_id: str
    occurred_at: datetime


class PaymentRefunded(PaymentEvent):
    """The body of payment.refunded: all of the payment was given back by the ledger entry `refund_id`."""

    refund_id: UUID


def event_of(move: Move, payment: Payment, trace: Trace) -> Event:
    """The event of the move that the payment has just made; its sequence is the payment's version."""
    body = PaymentEvent.model_construct(**_body(payment, trace), occurred_at=payment.updated_at)
    return _event(payment, move.event, payment.version, body, trace)


def refund_event_of(payment: Payment, refund_id: UUID, trace: Trace, at: datetime) -> Event:
    """The event that tells of a settled payment's refund.

    SETTLED is where a payment's moves end, so the number after its version is free for the one refund it can have.
    """
    body = PaymentRefunded.model_construct(**_body(payment, trace), occurred_at=at, refund_id=refund_id)
    return _event(payment, PAYMENT_REFUNDED, payment.version + 1, body, trace)


def _body(payment: Payment, trace: Trace) -> dict[str, Any]:
    return {
        "payment_intent_id": payment.id,
        "tenant_id": payment.tenant_id,
        "status": payment.status.value,
        "amount": format_amount(payment.money.amount, payment.money.currency),
        "currency": payment.money.currency,
        "customer_ref": payment.customer_ref,
        "order_id": payment.order_id,
        "correlation_id": trace.correlation_id,
    }


def _event(payment: Payment, type_: str, sequence: int, body: PaymentEvent, trace: Trace) -> Event:
    return Event(
        tenant_id=payment.tenant_id,
        id=uuid7(),
        type=type_,
        aggregate_id=payment.id,
        sequence=sequence,
        payload=body.model_dump_json(),
        trace=trace,
    )
