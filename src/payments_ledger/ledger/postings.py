"""The posting catalogue: which fact debits and credits what, and the accounts of every tenant."""

from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.ledger.entry import Account, AccountType, Entry, Posting
from payments_ledger.money import Money

CASH = "CASH"
REVENUE = "REVENUE"

DEFAULT_ACCOUNTS = (
    Account(CASH, "Cash received", AccountType.ASSET),
    Account(REVENUE, "Revenue from payments", AccountType.REVENUE),
)

SETTLEMENT = "settlement"
REFUND = "refund"


def settlement(*, tenant_id: str, source_id: UUID, money: Money, correlation_id: str) -> Entry:
    """Money was received for a sale: debit CASH, credit REVENUE."""
    return Entry(tenant_id, uuid7(), SETTLEMENT, source_id, correlation_id, (Posting(CASH, REVENUE, money),))


def refund(*, tenant_id: str, source_id: UUID, money: Money, correlation_id: str) -> Entry:
    """Money of a sale was given back, which reverses its settlement: debit REVENUE, credit CASH."""
    return Entry(tenant_id, uuid7(), REFUND, source_id, correlation_id, (Posting(REVENUE, CASH, money),))
