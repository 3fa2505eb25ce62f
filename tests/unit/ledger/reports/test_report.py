"""Reports add up, or are none."""

import pytest

from payments_ledger.ledger.accounts import AccountType
from payments_ledger.ledger.entry import Balance
from payments_ledger.ledger.reports.report import OutOfBalance, ReportName, Row, make_report

ASSET, LIABILITY, EQUITY, REVENUE, EXPENSE = AccountType


def balance(code: str, type_: AccountType, debits: int, credits_: int, *, is_contra: bool = False) -> Balance:
    return Balance(code, type_, "BRL", debits, credits_, is_contra)


BOOKS = (
    balance("BANK.A", ASSET, 100, 10),
    balance("BANK.B", ASSET, 0, 5),
    balance("BANK.C", LIABILITY, 0, 20),
    balance("CAPITAL", EQUITY, 0, 50),
    balance("FEES", REVENUE, 0, 40),
    balance("REFUNDS", REVENUE, 10, 0, is_contra=True),
    balance("COSTS", EXPENSE, 15, 0),
)


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        (ReportName.TRIAL_BALANCE, {"debits": 125, "credits": 125}),
        (ReportName.BALANCE_SHEET, {"assets": 85, "liabilities": 20, "equity": 65}),
        (ReportName.INCOME_STATEMENT, {"revenue": 30, "expenses": 15, "result": 15}),
    ],
)
def test_the_rows_of_a_type_add_up_to_its_total(name: ReportName, totals: dict[str, int]) -> None:
    assert make_report(name, BOOKS).totals == [("BRL", totals)]


def test_accounts_of_different_types_are_not_rolled_up_together() -> None:
    rows = make_report(ReportName.BALANCE_SHEET, BOOKS, depth=1).rows
    assert rows == [
        Row("BANK", ASSET, "BRL", 100, 15),
        Row("BANK", LIABILITY, "BRL", 0, 20),
        Row("CAPITAL", EQUITY, "BRL", 0, 50),
    ]


@pytest.mark.parametrize("name", ReportName)
def test_books_that_do_not_balance_make_no_report(name: ReportName) -> None:
    with pytest.raises(OutOfBalance, match="debits 126, credits 125 minor units of BRL"):
        make_report(name, [*BOOKS, balance("LOST", ASSET, 1, 0)])
