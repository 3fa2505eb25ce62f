"""What a payment writes into the books: which fact debits and credits what."""

from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.money import Money

SETTLEMENT = "settlement"
REFUND = "refund"
ENTRY_KINDS = (SETTLEMENT, REFUND)


def settlement(*, tenant_id: str, payment_id: UUID, money: Money, correlation_id: str) -> Entry:
    """Money was received for a sale: debit CASH, credit REVENUE."""
    return Entry(tenant_id, uuid7(), SETTLEMENT, payment_id, correlation_id, (Posting(CASH, REVENUE, money),))


def refund(*, tenant_id: str, payment_id: UUID, money: Money, correlation_id: str) -> Entry:
    """Money of a sale was given back, which reverses its settlement: debit REVENUE, credit CASH."""
    return Entry(tenant_id, uuid7(), REFUND, payment_id, correlation_id, (Posting(REVENUE, CASH, money),))
