"""What holds between the orders of the orders service and their payments."""

from payments_ledger.payments.invariants import PAYMENTS
from payments_ledger.verify.invariant import Invariant

INVARIANTS = (
    Invariant(
        "orders_agree_with_the_books",
        "The order of a payment exists; if it was cancelled, the payment is CANCELLED, FAILED or refunded in whole."
        " Nothing is undone for an order that was not.",
        PAYMENTS,
        """
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.order_id,
               known.order_id AS known_order_id, known.cancelled_at, subject.amount_refunded,
               known.order_id IS NULL
               OR known.cancelled_at IS NULL
                  AND (subject.cancellation_reason = 'order_cancelled'
                       OR EXISTS (SELECT FROM payment_refunds AS refund
                                  WHERE refund.tenant_id = subject.tenant_id AND refund.payment_id = subject.id
                                    AND refund.reason = 'order_cancelled'))
               OR known.cancelled_at IS NOT NULL
                  AND (subject.status IN ('CREATED', 'AUTHORIZED')
                       OR subject.status = 'SETTLED'
                          AND subject.amount_refunded < coalesce(subject.amount_captured, subject.amount)) AS broken
        FROM SUBJECT
        LEFT JOIN orders AS known
          ON known.tenant_id = subject.tenant_id AND known.order_id = subject.order_id
        """,
        "order_id IS NOT NULL",
    ),
)
