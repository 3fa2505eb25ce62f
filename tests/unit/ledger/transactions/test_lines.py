"""Lines become postings in one documented way, and postings give the same lines back."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.errors import InvalidRequest, Unbalanced
from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.transactions.lines import Line, as_lines, pair

D, C = Side.DEBIT, Side.CREDIT


def lines(*each: tuple[str, Side, int]) -> list[Line]:
    return [Line(account, side, amount, "BRL") for account, side, amount in each]


@pytest.mark.parametrize(
    ("given_lines", "paired"),
    [
        ([("A", D, 5), ("B", C, 5)], [("A", "B", 5)]),
        ([("B", C, 5), ("A", D, 5)], [("A", "B", 5)]),
        ([("A", D, 5), ("B", C, 2), ("C", C, 3)], [("A", "B", 2), ("A", "C", 3)]),
        ([("A", D, 2), ("B", D, 3), ("C", C, 5)], [("A", "C", 2), ("B", "C", 3)]),
        ([("A", D, 4), ("B", D, 3), ("C", C, 1), ("D", C, 6)], [("A", "C", 1), ("A", "D", 3), ("B", "D", 3)]),
        ([("A", D, 1), ("B", C, 2), ("A", D, 1)], [("A", "B", 1), ("A", "B", 1)]),
    ],
)
def test_the_first_debit_that_is_left_is_paired_with_the_first_credit_that_is_left(
    given_lines: list[tuple[str, Side, int]], paired: list[tuple[str, str, int]]
) -> None:
    postings = pair(lines(*given_lines))
    assert [(each.debit_account, each.credit_account, each.money.amount) for each in postings] == paired


@pytest.mark.parametrize(
    ("given_lines", "detail"),
    [
        ([("A", D, 150), ("B", C, 100)], "In BRL the debits exceed the credits by 0.50."),
        ([("A", D, 100), ("B", C, 150)], "In BRL the credits exceed the debits by 0.50."),
        ([("A", D, 100), ("B", D, 100)], "In BRL the debits exceed the credits by 2.00."),
    ],
)
def test_unbalanced_lines_say_by_how_much(given_lines: list[tuple[str, Side, int]], detail: str) -> None:
    with pytest.raises(Unbalanced) as refused:
        pair(lines(*given_lines))
    assert refused.value.detail == detail


def test_an_account_is_on_one_side_of_a_currency() -> None:
    with pytest.raises(InvalidRequest) as refused:
        pair(lines(("A", D, 5), ("A", C, 5)))
    assert refused.value.faults[0].path == ("lines", 1, "account")
    both = [*lines(("A", D, 5), ("B", C, 5)), Line("A", C, 7, "JPY"), Line("B", D, 7, "JPY")]
    assert len(pair(both)) == 2


@given(st.data())
def test_what_is_paired_gives_the_same_lines_back(data: st.DataObject) -> None:
    amounts = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=6))
    total = sum(amounts)
    cuts = sorted(data.draw(st.sets(st.integers(1, total - 1), max_size=5))) if total > 1 else []
    credited = [end - begin for begin, end in zip([0, *cuts], [*cuts, total], strict=True)]
    all_lines = [Line(f"D{number}", D, amount, "BRL") for number, amount in enumerate(amounts)]
    all_lines += [Line(f"C{number}", C, amount, "BRL") for number, amount in enumerate(credited)]
    shuffled = data.draw(st.permutations(all_lines))
    postings = pair(shuffled)
    assert Counter(as_lines(postings)) == Counter(shuffled)
    assert len(postings) < len(shuffled)
