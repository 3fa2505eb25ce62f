"""Accounts: their types, which side they grow on, their states, and those that every tenant begins with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class AccountType(StrEnum):
    """The types of double-entry bookkeeping: assets and expenses grow by debits, the others by credits."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    EXPENSE = "expense"


class Side(StrEnum):
    """The two sides of an account."""

    DEBIT = "debit"
    CREDIT = "credit"


class AccountState(StrEnum):
    """Nothing can be posted to a closed account."""

    OPEN = "open"
    CLOSED = "closed"


# Assets and expenses grow by debits; the other types grow by credits.
GROWS_BY_DEBITS = frozenset({AccountType.ASSET, AccountType.EXPENSE})


_OTHER = {Side.DEBIT: Side.CREDIT, Side.CREDIT: Side.DEBIT}


def side_of(type_: AccountType) -> Side:
    """The normal side of accounts of the type."""
    return Side.DEBIT if type_ in GROWS_BY_DEBITS else Side.CREDIT


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds of a balance on its normal side, in minor units, both inclusive; None is unbounded."""

    currency: str
    minimum: int | None = None
    maximum: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether it bounds nothing."""
        return self.minimum is None and self.maximum is None


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a tenant's books, named by its `code`; parts of it between dots make a tree (WALLET.C001).

    A contra account grows on the side opposite to that of its type. `version` counts its events, whose aggregate is
    `id`; the accounts that every tenant begins with have neither. `limits` are given where they were asked for.
    """

    code: str
    name: str
    type: AccountType
    is_contra: bool = False
    owner_ref: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    id: UUID | None = None
    version: int = 0
    created_at: datetime | None = None
    closed_at: datetime | None = None
    limits: tuple[Limit, ...] = ()

    @property
    def normal_side(self) -> Side:
        """The side on which its balance is positive."""
        side = side_of(self.type)
        return _OTHER[side] if self.is_contra else side

    @property
    def state(self) -> AccountState:
        """Open, unless it was closed and not reopened."""
        return AccountState.CLOSED if self.closed_at else AccountState.OPEN


CASH = "CASH"
REVENUE = "REVENUE"

DEFAULT_ACCOUNTS = (
    Account(CASH, "Cash received", AccountType.ASSET),
    Account(REVENUE, "Revenue from payments", AccountType.REVENUE),
)
# Payments post to these without a look at limits or closings, so they can have neither.
OF_PAYMENTS = frozenset(account.code for account in DEFAULT_ACCOUNTS)
