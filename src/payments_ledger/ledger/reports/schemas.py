"""Balances as of a time, statements and reports as they stand in responses: JSON, or CSV (RFC 4180)."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from payments_ledger.ledger.accounts import AccountType
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.chart.schemas import RunningBalanceDocument
from payments_ledger.ledger.entry import Balance
from payments_ledger.ledger.reports.report import Report, Row
from payments_ledger.ledger.reports.statement import By, Line
from payments_ledger.ledger.reports.use_cases import Statement
from payments_ledger.money import format_amount

CSV = "text/csv"
# What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

LINE_EXAMPLE: JsonDict = {
    "transaction_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "payment_intent_id": None,
    "entry_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "side": "CREDIT",
    "amount": "100.00",
    "balance": "100.00",
    "recorded_at": "2026-01-31T12:00:00Z",
    "effective_at": "2026-01-31T12:00:00Z",
    "book_date": "2026-01-31",
    "description": "Deposit by Pix",
    "reference": "deposit-2026-0001",
}


class BalanceAsOfDocument(RunningBalanceDocument):
    """As of a time only what is posted is known: `pending_*` and `available` are left out."""

    pending_debits: Annotated[str | None, Field(exclude_if=lambda amount: amount is None)] = None  # type: ignore[assignment]
    pending_credits: Annotated[str | None, Field(exclude_if=lambda amount: amount is None)] = None  # type: ignore[assignment]
    available: Annotated[str | None, Field(exclude_if=lambda amount: amount is None)] = None  # type: ignore[assignment]


class StatementLineDocument(BaseModel):
    """`amount` is what the account was debited or credited, `balance` what it has afterwards, on its normal side.

    One of `transaction_id` and `payment_intent_id` is null.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [LINE_EXAMPLE]})

    transaction_id: str | None
    payment_intent_id: str | None
    entry_id: str
    side: Literal["DEBIT", "CREDIT"]
    amount: str
    balance: str
    recorded_at: datetime
    effective_at: datetime
    book_date: date
    description: str | None
    reference: str | None


class StatementDocument(BaseModel):
    """A page: the balance before its first line, its lines, and the balance after its last one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "WALLET.C001",
                    "currency": "BRL",
                    "by": "effective",
                    "from": "2026-01-01T00:00:00Z",
                    "to": "2026-02-01T00:00:00Z",
                    "opening_balance": "0.00",
                    "lines": [LINE_EXAMPLE],
                    "closing_balance": "100.00",
                }
            ]
        }
    )

    account: str
    currency: str
    by: By
    from_: Annotated[datetime | None, Field(serialization_alias="from")]
    to: datetime | None
    opening_balance: str
    lines: list[StatementLineDocument]
    closing_balance: str


class ReportRow(BaseModel):
    """`balance` is positive on the side of the type, so that the rows of a type add up."""

    account: str
    type: AccountType
    currency: str
    debits: str
    credits: str
    balance: str


class TrialBalanceTotals(BaseModel):
    """Debits are credits."""

    currency: str
    debits: str
    credits: str


class BalanceSheetTotals(BaseModel):
    """Assets are liabilities and equity; the result to date is part of equity."""

    currency: str
    assets: str
    liabilities: str
    equity: str


class IncomeStatementTotals(BaseModel):
    """The result is revenue less expenses."""

    currency: str
    revenue: str
    expenses: str
    result: str


def _example(totals: JsonDict) -> ConfigDict:
    row: JsonDict = {
        "account": "CASH",
        "type": "asset",
        "currency": "BRL",
        "debits": "100.00",
        "credits": "0.00",
        "balance": "100.00",
    }
    return ConfigDict(json_schema_extra={"examples": [{"rows": [row], "totals": [{"currency": "BRL", **totals}]}]})


class TrialBalance(BaseModel):
    """Every account that moved, and what was debited and credited in all, for each currency."""

    model_config = _example({"debits": "100.00", "credits": "100.00"})

    rows: list[ReportRow]
    totals: list[TrialBalanceTotals]


class BalanceSheet(BaseModel):
    """What there is, and whose it is, for each currency."""

    model_config = _example({"assets": "100.00", "liabilities": "20.00", "equity": "80.00"})

    rows: list[ReportRow]
    totals: list[BalanceSheetTotals]


class IncomeStatement(BaseModel):
    """What was earned and spent, for each currency."""

    model_config = _example({"revenue": "100.00", "expenses": "20.00", "result": "80.00"})

    rows: list[ReportRow]
    totals: list[IncomeStatementTotals]


def show_balance_as_of(balance: Balance, now: RunningBalance) -> BalanceAsOfDocument:
    """What was posted then; the version is the one that it has now."""
    return BalanceAsOfDocument.model_construct(
        account=balance.account,
        currency=balance.currency,
        posted=format_amount(balance.balance, balance.currency),
        pending_debits=None,
        pending_credits=None,
        available=None,
        version=now.version,
    )


def show_statement(statement: Statement) -> StatementDocument:
    """Minor units become decimal strings in major units."""
    return StatementDocument.model_construct(
        account=statement.account.code,
        currency=statement.currency,
        by=statement.by,
        from_=statement.start,
        to=statement.end,
        opening_balance=format_amount(statement.opening, statement.currency),
        lines=[_line(line, statement.currency) for line in statement.lines],
        closing_balance=format_amount(statement.closing, statement.currency),
    )


def _line(line: Line, currency: str) -> StatementLineDocument:
    source = str(line.source_id)
    return StatementLineDocument.model_construct(
        transaction_id=source if line.is_transaction else None,
        payment_intent_id=None if line.is_transaction else source,
        entry_id=str(line.entry_id),
        side="DEBIT" if line.side == "debit" else "CREDIT",
        amount=format_amount(line.amount, currency),
        balance=format_amount(line.balance, currency),
        recorded_at=line.recorded_at,
        effective_at=line.effective_at,
        book_date=line.book_date,
        description=line.description,
        reference=line.reference,
    )


def statement_as_csv(statement: Statement) -> bytes:
    """A row for the opening balance, one for each line, and one for the closing balance; `row` says which it is."""
    document = show_statement(statement)
    fields = list(StatementLineDocument.model_fields)
    blank = dict.fromkeys(fields, "")
    rows = [
        ["opening", *(blank | {"balance": document.opening_balance}).values()],
        *(["line", *line.model_dump(mode="json").values()] for line in document.lines),
        ["closing", *(blank | {"balance": document.closing_balance}).values()],
    ]
    return as_csv(["row", *fields], rows, texts=("description", "reference"))


def show_report(report: Report) -> dict[str, list[dict[str, str]]]:
    """As TrialBalance, BalanceSheet or IncomeStatement: minor units become decimal strings in major units."""
    return {
        "rows": [_row(row) for row in report.rows],
        "totals": [
            {"currency": currency, **{name: format_amount(amount, currency) for name, amount in totals.items()}}
            for currency, totals in report.totals
        ],
    }


def _row(row: Row) -> dict[str, str]:
    return {
        "account": row.account,
        "type": row.type.value,
        "currency": row.currency,
        "debits": format_amount(row.debits, row.currency),
        "credits": format_amount(row.credits, row.currency),
        "balance": format_amount(row.balance, row.currency),
    }


def report_as_csv(report: Report) -> bytes:
    """A row for each account and currency; the totals are for the reader to add up, or in the JSON."""
    return as_csv(list(ReportRow.model_fields), (list(_row(row).values()) for row in report.rows))


def as_csv(header: Sequence[str], rows: Iterable[Sequence[str | None]], texts: Sequence[str] = ()) -> bytes:
    """RFC 4180, with a header. In the columns of `texts` an apostrophe keeps spreadsheets from running a formula."""
    places = {header.index(name) for name in texts}
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_unformulated(cell) if place in places else cell for place, cell in enumerate(row)])
    return written.getvalue().encode()


def _unformulated(cell: str | None) -> str | None:
    return f"'{cell}" if cell and cell.startswith(_FORMULA) else cell
