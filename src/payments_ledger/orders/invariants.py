"""What holds between the orders of the orders service and their payments."""

from payments_ledger.payments.invariants import PAYMENTS
from payments_ledger.payments.postings import REFUND
from payments_ledger.verify.invariant import Invariant

INVARIANTS = (
    Invariant(
        "orders_agree_with_the_books",
        "The order of a payment exists; if it was cancelled, the payment is CANCELLED, FAILED or refunded, else not.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.order_id,
               known.order_id AS known_order_id, known.cancelled_at, refund.id AS refund_id,
               CASE WHEN known.order_id IS NULL THEN true
                    WHEN known.cancelled_at IS NULL THEN subject.status = 'CANCELLED' OR refund.id IS NOT NULL
                    ELSE subject.status IN ('CREATED', 'AUTHORIZED')
                         OR subject.status = 'SETTLED' AND refund.id IS NULL END AS broken
        FROM SUBJECT
        LEFT JOIN orders AS known
          ON known.tenant_id = subject.tenant_id AND known.order_id = subject.order_id
        LEFT JOIN ledger_entries AS refund
          ON refund.tenant_id = subject.tenant_id AND refund.source_id = subject.id AND refund.kind = '{REFUND}'
        """,  # noqa: S608
        "order_id IS NOT NULL",
    ),
)
