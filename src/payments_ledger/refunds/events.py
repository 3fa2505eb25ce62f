"""The event of a refund: what every event of a payment says, and what was given back."""

from uuid import UUID

from payments_ledger.commit.events import Event
from payments_ledger.money import format_amount
from payments_ledger.payments.events import PaymentEvent, payment_event
from payments_ledger.payments.lifecycle import REFUND
from payments_ledger.payments.payment import Payment
from payments_ledger.refunds.refund import Refund
from payments_ledger.telemetry.tracing import Trace


class PaymentRefunded(PaymentEvent):
    """The body of payment.refunded, once for each refund; `amount_refunded` is the sum of all up to this one."""

    refund_id: UUID
    refund_amount: str
    amount_refunded: str
    reference: str | None


def event_of(refund: Refund, payment: Payment, trace: Trace) -> Event:
    """The event of the refund that has just raised the payment's version and its `amount_refunded`."""
    more = {
        "refund_id": refund.id,
        "refund_amount": format_amount(refund.money.amount, refund.money.currency),
        "amount_refunded": format_amount(payment.amount_refunded, payment.money.currency),
        "reference": refund.reference,
    }
    return payment_event(REFUND.event, PaymentRefunded, payment, trace, more)
