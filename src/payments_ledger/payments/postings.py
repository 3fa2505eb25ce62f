"""What a payment writes into the books when it settles."""

from uuid_utils.compat import uuid7

from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.money import Money
from payments_ledger.payments.payment import Payment

SETTLEMENT = "settlement"


def settlement(payment: Payment, correlation_id: str) -> Entry:
    """Money was received for a sale: debit CASH, credit REVENUE with what was captured.

    The source is the fact that caused it: a capture, or the payment itself where it settles in whole.
    """
    money = Money(payment.amount_captured, payment.money.currency)
    postings = (Posting(CASH, REVENUE, money),)
    if payment.captured is None:
        return Entry(payment.tenant_id, uuid7(), SETTLEMENT, payment.id, correlation_id, postings)
    return Entry(
        payment.tenant_id, uuid7(), SETTLEMENT, payment.captured.id, correlation_id, postings, subject_id=payment.id
    )
