"""Accounts: their types, which side they grow on, and those that every tenant begins with."""

from dataclasses import dataclass
from enum import StrEnum


class AccountType(StrEnum):
    """The types of double-entry bookkeeping: assets and expenses grow by debits, the others by credits."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    EXPENSE = "expense"


# Assets and expenses grow by debits; the other types grow by credits.
GROWS_BY_DEBITS = frozenset({AccountType.ASSET, AccountType.EXPENSE})


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a tenant's books, named by its `code`."""

    code: str
    name: str
    type: AccountType


CASH = "CASH"
REVENUE = "REVENUE"

DEFAULT_ACCOUNTS = (
    Account(CASH, "Cash received", AccountType.ASSET),
    Account(REVENUE, "Revenue from payments", AccountType.REVENUE),
)
