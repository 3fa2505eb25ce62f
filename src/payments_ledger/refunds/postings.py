"""What a refund writes into the books."""

from uuid_utils.compat import uuid7

from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.refunds.refund import Refund

REFUND = "refund"


def reversal(refund: Refund, correlation_id: str) -> Entry:
    """Money of a sale was given back, which reverses that much of its settlement: debit REVENUE, credit CASH."""
    return Entry(
        tenant_id=refund.tenant_id,
        id=uuid7(),
        kind=REFUND,
        source_id=refund.id,
        correlation_id=correlation_id,
        postings=(Posting(REVENUE, CASH, refund.money),),
        subject_id=refund.payment_id,
    )
