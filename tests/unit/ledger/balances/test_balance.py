"""What is posted, available and at most to come of a balance, on its normal side."""

import pytest

from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.balances.balance import NOTHING, Movement, RunningBalance, movements
from payments_ledger.ledger.entry import Posting
from payments_ledger.money import Money


@pytest.mark.parametrize(
    ("side", "posted", "available", "highest"),
    [(Side.DEBIT, 30, 27, 35), (Side.CREDIT, -30, -35, -27)],
)
def test_what_is_pending_counts_against_the_balance_on_its_normal_side(
    side: Side, posted: int, available: int, highest: int
) -> None:
    balance = RunningBalance("A", "BRL", side, 100, 70, pending_debits=5, pending_credits=3)
    assert (balance.posted, balance.available, balance.highest) == (posted, available, highest)


@pytest.mark.parametrize(
    ("minimum", "maximum", "below", "above"),
    [
        (None, None, False, False),
        (20, 45, False, False),
        (21, 45, True, False),
        (20, 44, False, True),
        (-5, None, False, False),
    ],
)
def test_limits_are_inclusive(minimum: int | None, maximum: int | None, below: bool, above: bool) -> None:
    balance = RunningBalance("A", "BRL", Side.DEBIT, 40, 0, 5, 20, minimum, maximum)
    assert (balance.available, balance.highest) == (20, 45)
    assert (balance.is_below_minimum, balance.is_above_maximum) == (below, above)
    assert balance.has_limits is (minimum is not None or maximum is not None)


def test_a_change_adds_what_is_posted_and_the_net_of_what_is_held_or_released() -> None:
    balance = RunningBalance("A", "BRL", Side.DEBIT, 1, 2, 30, 40, version=9)
    after = balance.changed(posted=Movement(10, 20), held=Movement(7, 4), released=Movement(5, 15))
    assert (after.debits, after.credits, after.pending_debits, after.pending_credits) == (11, 22, 33, 30)
    assert after.version == 10
    assert balance.changed(posted=NOTHING, held=NOTHING, released=NOTHING).version == 10


def test_movements_are_summed_by_account_and_currency() -> None:
    postings = [
        Posting("A", "B", Money(5, "BRL")),
        Posting("B", "A", Money(2, "BRL")),
        Posting("A", "C", Money(1, "JPY")),
    ]
    assert movements(postings) == {
        ("A", "BRL"): Movement(5, 2),
        ("B", "BRL"): Movement(2, 5),
        ("A", "JPY"): Movement(1, 0),
        ("C", "JPY"): Movement(0, 1),
    }
