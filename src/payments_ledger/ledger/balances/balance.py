"""A running balance as a value: what is posted, what is pending, and the limits that hold for both together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.entry import Posting

type BalanceKey = tuple[str, str, str]
"""Tenant, code of the account, currency."""


@dataclass(frozen=True, slots=True)
class RunningBalance:
    """The sums of one account in one currency, in minor units, and its limits, both inclusive; None is no limit.

    `version` grows with each change. One that is not kept has no row in the database: it was summed up to be looked at.
    """

    account: str
    currency: str
    normal_side: Side
    debits: int = 0
    credits: int = 0
    pending_debits: int = 0
    pending_credits: int = 0
    minimum: int | None = None
    maximum: int | None = None
    version: int = 0
    is_kept: bool = True

    @property
    def posted(self) -> int:
        """What is in the books, positive on the normal side."""
        net_debit = self.debits - self.credits
        return net_debit if self.normal_side is Side.DEBIT else -net_debit

    @property
    def available(self) -> int:
        """What is posted less what pending transactions could take away."""
        return self.posted - (self.pending_credits if self.normal_side is Side.DEBIT else self.pending_debits)

    @property
    def highest(self) -> int:
        """What is posted and what pending transactions could add."""
        return self.posted + (self.pending_debits if self.normal_side is Side.DEBIT else self.pending_credits)

    @property
    def has_limits(self) -> bool:
        """Whether it has at least one."""
        return self.minimum is not None or self.maximum is not None

    @property
    def is_below_minimum(self) -> bool:
        """Whether what is available is less than the minimum."""
        return self.minimum is not None and self.available < self.minimum

    @property
    def is_above_maximum(self) -> bool:
        """Whether it could come to be more than the maximum."""
        return self.maximum is not None and self.highest > self.maximum

    def changed(self, *, posted: "Movement", held: "Movement", released: "Movement") -> Self:
        """The balance after one transaction; what it holds and releases counts by its net alone."""
        return replace(
            self,
            debits=self.debits + posted.debits,
            credits=self.credits + posted.credits,
            pending_debits=self.pending_debits + held.net_debits - released.net_debits,
            pending_credits=self.pending_credits + held.net_credits - released.net_credits,
            version=self.version + 1,
        )


@dataclass(frozen=True, slots=True)
class Movement:
    """What postings debit and credit one account in one currency, in minor units."""

    debits: int = 0
    credits: int = 0

    @property
    def net_debits(self) -> int:
        """By how much debits exceed credits, at least 0."""
        return max(self.debits - self.credits, 0)

    @property
    def net_credits(self) -> int:
        """By how much credits exceed debits, at least 0."""
        return max(self.credits - self.debits, 0)


NOTHING = Movement()


def movements(postings: Iterable[Posting]) -> dict[tuple[str, str], Movement]:
    """What the postings move, by account and currency, in the order in which these first occur."""
    moved: dict[tuple[str, str], Movement] = {}
    for posting in postings:
        amount, currency = posting.money.amount, posting.money.currency
        debited = moved.get((posting.debit_account, currency), NOTHING)
        moved[posting.debit_account, currency] = Movement(debited.debits + amount, debited.credits)
        credited = moved.get((posting.credit_account, currency), NOTHING)
        moved[posting.credit_account, currency] = Movement(credited.debits, credited.credits + amount)
    return moved
