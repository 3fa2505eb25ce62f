"""What a reader asks of the books, each answered from one snapshot: balances as of a time, statements, reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from payments_ledger.errors import AccountNotFound, InvalidParameter
from payments_ledger.ledger.accounts import Account
from payments_ledger.ledger.chart.queries import find_account
from payments_ledger.ledger.entry import Balance
from payments_ledger.ledger.reports import queries
from payments_ledger.ledger.reports.moment import Moment, Span, end_of
from payments_ledger.ledger.reports.report import Report, ReportName, make_report
from payments_ledger.ledger.reports.statement import By, Continuation, Line, Place, with_balances
from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class StatementWanted:
    """Which statement: `start` is inclusive, `end` exclusive, None no bound; `continued` is what a page before left."""

    code: str
    currency: str | None
    by: By = By.EFFECTIVE
    start: Moment | None = None
    end: Moment | None = None
    continued: Continuation | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A page of a statement. `opening` is the balance before its first line, in minor units."""

    account: Account
    currency: str
    by: By
    start: datetime | None
    end: datetime | None
    opening: int
    lines: Sequence[Line]

    @property
    def closing(self) -> int:
        """The balance after the last line."""
        return self.lines[-1].balance if self.lines else self.opening


async def balances_as_of(
    conn: Connection, tenant_id: str, code: str, *, as_of: Moment | None, known_at: Moment | None
) -> list[Balance]:
    """What was effective by then, and recorded by then, both with the instant or the whole day. Raises AccountNotFound.

    One balance for each currency that the account ever moved in.
    """
    zone = await queries.find_zone(conn, tenant_id)
    if await find_account(conn, tenant_id, code) is None:
        raise AccountNotFound
    cut = await queries.find_cut(
        conn,
        zone,
        effective_before=None if as_of is None else end_of(as_of, zone),
        recorded_before=None if known_at is None else end_of(known_at, zone),
    )
    return await queries.list_balances_as_of(conn, tenant_id, code, cut)


async def make_statement(
    conn: Connection, tenant_id: str, wanted: StatementWanted, limit: int
) -> tuple[Statement, bool]:
    """A page of up to `limit` lines, and whether there is a next one.

    Raises AccountNotFound, or InvalidParameter of currency and times.
    """
    zone = await queries.find_zone(conn, tenant_id)
    account = await find_account(conn, tenant_id, wanted.code)
    if account is None:
        raise AccountNotFound
    start, end = Span(wanted.start, wanted.end).bounds(zone)
    currency = wanted.currency or await _only_currency(conn, tenant_id, account.code)
    if wanted.continued:
        after, opening = wanted.continued.place, wanted.continued.balance
    else:
        after, opening = Place.before_all(start), 0
        if start is not None:
            opening = await _opening(conn, tenant_id, wanted, zone, start, currency)
    lines = await queries.list_lines(
        conn, tenant_id, account.code, currency, wanted.by, after=after, end=end, limit=limit + 1
    )
    lines_shown = with_balances(lines[:limit], opening, account.normal_side)
    return Statement(account, currency, wanted.by, start, end, opening, lines_shown), len(lines) > limit


async def _opening(
    conn: Connection, tenant_id: str, wanted: StatementWanted, zone: str, start: datetime, currency: str
) -> int:
    if wanted.by is By.EFFECTIVE:
        cut = await queries.find_cut(conn, zone, effective_before=start)
    else:
        cut = await queries.find_cut(conn, zone, recorded_before=start)
    balances = await queries.list_balances_as_of(conn, tenant_id, wanted.code, cut)
    return sum(balance.balance for balance in balances if balance.currency == currency)


async def _only_currency(conn: Connection, tenant_id: str, code: str) -> str:
    balances = await queries.list_balances_as_of(conn, tenant_id, code, queries.EVERYTHING)
    if len(balances) != 1:
        moved = ", ".join(balance.currency for balance in balances) or "none yet"
        raise InvalidParameter("currency", f"currency is needed: the account moved in {moved}.")
    return balances[0].currency


async def report(
    conn: Connection,
    tenant_id: str,
    name: ReportName,
    span: Span,
    *,
    currency: str | None = None,
    depth: int | None = None,
) -> Report:
    """The report over the span. Raises InvalidParameter of its times, and OutOfBalance."""
    zone = await queries.find_zone(conn, tenant_id)
    start, end = span.bounds(zone)
    first = None if start is None else await queries.find_cut(conn, zone, effective_before=start)
    last = await queries.find_cut(conn, zone, effective_before=end)
    balances = await queries.list_balances_between(conn, tenant_id, first, last, currency)
    return make_report(name, [each for each in balances if each.debits_total or each.credits_total], depth)
