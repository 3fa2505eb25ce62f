"""Entries cannot be out of balance, and balances have the sign of their account."""

from uuid import UUID

import pytest

from payments_ledger.ledger.accounts import CASH, AccountType
from payments_ledger.ledger.entry import Balance, Entry, Posting
from payments_ledger.money import Money


def test_an_entry_without_postings_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one posting"):
        Entry("t", UUID(int=1), "settlement", UUID(int=2), "c", ())


def test_a_posting_within_one_account_is_refused() -> None:
    with pytest.raises(ValueError, match="two different accounts"):
        Posting(CASH, CASH, Money(1, "BRL"))


@pytest.mark.parametrize(
    ("account_type", "balance"),
    [
        (AccountType.ASSET, 70),
        (AccountType.EXPENSE, 70),
        (AccountType.LIABILITY, -70),
        (AccountType.EQUITY, -70),
        (AccountType.REVENUE, -70),
    ],
)
def test_a_balance_is_positive_on_the_normal_side_of_its_account(account_type: AccountType, balance: int) -> None:
    assert Balance("A", account_type, "BRL", debits_total=100, credits_total=30).balance == balance
