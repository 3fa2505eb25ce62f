"""Reports over all accounts as values: trial balance, balance sheet, income statement. Each balances, or is none."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from payments_ledger.ledger.accounts import GROWS_BY_DEBITS, AccountType
from payments_ledger.ledger.entry import Balance


class OutOfBalance(Exception):
    """Debits are not what credits are. The books cannot be written so: whoever reads them reads them wrongly."""


class ReportName(StrEnum):
    """The reports there are."""

    TRIAL_BALANCE = "trial-balance"
    BALANCE_SHEET = "balance-sheet"
    INCOME_STATEMENT = "income-statement"


# The accounts that stand in each.
_TYPES: dict[ReportName, frozenset[AccountType]] = {
    ReportName.TRIAL_BALANCE: frozenset(AccountType),
    ReportName.BALANCE_SHEET: frozenset({AccountType.ASSET, AccountType.LIABILITY, AccountType.EQUITY}),
    ReportName.INCOME_STATEMENT: frozenset({AccountType.REVENUE, AccountType.EXPENSE}),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An account, or all accounts of a type below a prefix, in one currency; sums in minor units."""

    account: str
    type: AccountType
    currency: str
    debits: int
    credits: int

    @property
    def balance(self) -> int:
        """Positive on the side of the type. A contra account's is negative, so that the rows of a type add up."""
        net_debit = self.debits - self.credits
        return net_debit if self.type in GROWS_BY_DEBITS else -net_debit


@dataclass(frozen=True, slots=True)
class Report:
    """The rows in the order of their accounts, and for each currency its totals by their names, in minor units."""

    name: ReportName
    rows: Sequence[Row]
    totals: Sequence[tuple[str, dict[str, int]]]


def make_report(name: ReportName, balances: Collection[Balance], depth: int | None = None) -> Report:
    """The report of these balances of all accounts; `depth` parts of each code, None being all. Raises OutOfBalance."""
    rows = _rolled_up(balances, depth)
    currencies = sorted({row.currency for row in rows})
    totals = [(currency, _totals(name, [row for row in rows if row.currency == currency])) for currency in currencies]
    return Report(name, [row for row in rows if row.type in _TYPES[name]], totals)


def _rolled_up(balances: Iterable[Balance], depth: int | None) -> list[Row]:
    sums: dict[tuple[str, AccountType, str], tuple[int, int]] = {}
    for balance in balances:
        account = ".".join(balance.account.split(".")[:depth])
        key = account, balance.type, balance.currency
        debits, credits_ = sums.get(key, (0, 0))
        sums[key] = debits + balance.debits_total, credits_ + balance.credits_total
    return [Row(*key, *sums[key]) for key in sorted(sums)]


def _totals(name: ReportName, rows: Sequence[Row]) -> dict[str, int]:
    debits, credits_ = sum(row.debits for row in rows), sum(row.credits for row in rows)
    if debits != credits_:
        raise OutOfBalance(f"debits {debits}, credits {credits_} minor units of {rows[0].currency}")
    of = {type_: sum(row.balance for row in rows if row.type is type_) for type_ in AccountType}
    result = of[AccountType.REVENUE] - of[AccountType.EXPENSE]
    match name:
        case ReportName.TRIAL_BALANCE:
            return {"debits": debits, "credits": credits_}
        case ReportName.INCOME_STATEMENT:
            return {"revenue": of[AccountType.REVENUE], "expenses": of[AccountType.EXPENSE], "result": result}
    # What was earned belongs to the owners, closed into equity or not.
    equity = of[AccountType.EQUITY] + result
    if of[AccountType.ASSET] != of[AccountType.LIABILITY] + equity:
        raise OutOfBalance(f"assets are not liabilities and equity in {rows[0].currency}")
    return {"assets": of[AccountType.ASSET], "liabilities": of[AccountType.LIABILITY], "equity": equity}
