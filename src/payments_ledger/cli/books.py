"""`statement`, `report` and `export`: the books for people, for programs, and for other programs of accounting."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import (
    CANNOT,
    Json,
    Tenant,
    as_utc,
    fail,
    print_columns,
    print_json,
    progress_bar,
    run,
    say,
)


# As in ledger/reports and ledger/exports, which are only imported when they are needed.
class ReportName(StrEnum):
    """The reports there are."""

    TRIAL_BALANCE = "trial-balance"
    BALANCE_SHEET = "balance-sheet"
    INCOME_STATEMENT = "income-statement"


class Format(StrEnum):
    """What an export can be written as."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"
    PARQUET = "parquet"


class By(StrEnum):
    """Which of the two times of an entry orders and bounds a statement."""

    EFFECTIVE = "effective"
    RECORDED = "recorded"


def _moment(text: str) -> datetime | date:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            return date.fromisoformat(text)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("A day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z.") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


_OF_DAYS = "A day is one of the tenant's zone; a time without a zone is UTC."
From = Annotated[date | None, typer.Option("--from", parser=_moment, metavar="TIME", help=f"Inclusive. {_OF_DAYS}")]
To = Annotated[date | None, typer.Option("--to", parser=_moment, metavar="TIME", help="Exclusive.")]
AsOf = Annotated[date | None, typer.Option(parser=_moment, metavar="TIME", help=f"Inclusive. {_OF_DAYS}")]
Currency = Annotated[str | None, typer.Option(help="ISO 4217, such as BRL.")]


def statement(
    account: Annotated[str, typer.Argument(help="The account's code.")],
    tenant: Tenant,
    currency: Currency = None,
    start: From = None,
    end: To = None,
    by: Annotated[By, typer.Option(help="Which of the two times orders and bounds it.")] = By.EFFECTIVE,
    json: Json = False,
) -> None:
    """Print the statement of an account: opening balance, lines with their running balance, closing balance."""
    from payments_ledger.ledger.reports.schemas import show_statement
    from payments_ledger.ledger.reports.statement import By as WantedBy
    from payments_ledger.ledger.reports.use_cases import StatementWanted
    from payments_ledger.operations import books

    settings = read_settings()
    wanted = StatementWanted(account, currency, WantedBy(by), start, end)
    found = show_statement(run(settings, books.statement(settings.database_url, tenant, wanted)))
    if json:
        say(found.model_dump_json(by_alias=True))
        return
    rows: list[Sequence[object]] = [("", "", "", "opening balance", "", "", found.opening_balance)]
    for line in found.lines:
        debit, credit = (line.amount, "") if line.side == "DEBIT" else ("", line.amount)
        what = line.description or line.reference or line.payment_intent_id or line.transaction_id
        rows.append((line.book_date, line.effective_at, line.recorded_at, what, debit, credit, line.balance))
    rows.append(("", "", "", "closing balance", "", "", found.closing_balance))
    print_columns(rows, "booked", "effective", "recorded", "what", "debit", "credit", f"balance in {found.currency}")


def report(
    name: Annotated[ReportName, typer.Argument(help="Which report.")],
    tenant: Tenant,
    as_of: AsOf = None,
    start: From = None,
    end: To = None,
    currency: Currency = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Roll accounts up to this many dotted parts.")] = None,
    json: Json = False,
) -> None:
    """Print the trial balance, the balance sheet or the income statement, as of a time or over a period."""
    from payments_ledger.ledger.reports.moment import Span
    from payments_ledger.ledger.reports.report import ReportName as WantedName
    from payments_ledger.ledger.reports.schemas import show_report
    from payments_ledger.operations import books

    settings = read_settings()

    async def make() -> dict[str, list[dict[str, str]]]:
        span = Span(start, end, as_of)
        return show_report(
            await books.report(settings.database_url, tenant, WantedName(name), span, currency=currency, depth=depth)
        )

    found = run(settings, make())
    if json:
        print_json(found)
        return
    for part in ("rows", "totals"):
        if documents := found[part]:
            print_columns((list(each.values()) for each in documents), *documents[0])
            typer.echo()


def export(
    tenant: Tenant,
    format: Annotated[Format, typer.Option(help="What to write it as.")],  # noqa: A002
    to: Annotated[Path, typer.Option(dir_okay=False, help="The file, which is replaced if it exists.")],
    start: Annotated[
        datetime | None, typer.Option("--from", help="Only entries recorded since this time (UTC).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only entries recorded before this time (UTC).")] = None,
    json: Json = False,
) -> None:
    """Write the books of a tenant to a file for another program, all of one moment. Shows its progress."""
    from payments_ledger.ledger.exports.export import Format as WantedFormat
    from payments_ledger.ledger.period import Period
    from payments_ledger.operations import books

    settings = read_settings()

    async def write() -> int:
        period = Period(as_utc(start), as_utc(until))
        with progress_bar() as progress:
            bar = progress.add_task("Exporting", total=None)
            return await books.export(
                settings.database_url,
                tenant,
                WantedFormat(format),
                to,
                period,
                lambda done, total: progress.update(bar, completed=done, total=total),
            )

    try:
        entries = run(settings, write())
    except OSError as error:
        fail(f"Cannot write {to}: {error.strerror}.", "Nothing was left behind.", CANNOT)
    except ImportError:
        fail("Parquet is not installed.", "pip install 'payments-ledger[parquet]'", CANNOT)
    if json:
        print_json({"entries": entries, "file": str(to)})
    else:
        say(f"{entries:,} entries written to {to}.")
