"""The HTTP routes of what the books say as of a time: balances and statements of an account, and reports."""

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.errors import AccountNotFound, InvalidParameter, UnknownCurrency
from payments_ledger.ledger.balances.queries import list_running_balances
from payments_ledger.ledger.chart.queries import find_account
from payments_ledger.ledger.chart.schemas import CODE, show_running_balance
from payments_ledger.ledger.reports import use_cases
from payments_ledger.ledger.reports.moment import Span
from payments_ledger.ledger.reports.report import ReportName
from payments_ledger.ledger.reports.schemas import (
    CSV,
    BalanceAsOfDocument,
    BalanceSheet,
    IncomeStatement,
    StatementDocument,
    TrialBalance,
    report_as_csv,
    show_balance_as_of,
    show_report,
    show_statement,
    statement_as_csv,
)
from payments_ledger.ledger.reports.statement import By, Continuation
from payments_ledger.ledger.reports.use_cases import StatementWanted
from payments_ledger.money import exponent_of
from payments_ledger.web.paging import Page, json_array
from payments_ledger.web.parameters import Moment, single_header
from payments_ledger.web.problems import documented
from payments_ledger.web.routes import Route

router = APIRouter(prefix="/v1/ledger", tags=["ledger"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.LEDGER_READ))]
AccountCode = Annotated[str, CODE, Path(description="The account", examples=["WALLET.C001"])]
PROBLEMS = documented(*TENANT_PROBLEMS)


def _or_csv(*example: str) -> dict[int | str, dict[str, Any]]:
    content = {CSV: {"schema": {"type": "string"}, "example": "\r\n".join((*example, ""))}}
    return PROBLEMS | {HTTPStatus.OK: {"content": content}}


STATEMENT_OR_CSV = _or_csv(
    "row,transaction_id,payment_intent_id,entry_id,side,amount,balance,recorded_at,effective_at,book_date,description,"
    "reference",
    "opening,,,,,,0.00,,,,,",
    "line,01a20568-8a1a-72a7-9083-66e400122dd8,,01a20568-8a1a-72a7-9083-66e400122dd8,CREDIT,100.00,100.00,"
    "2026-01-31T12:00:00Z,2026-01-31T12:00:00Z,2026-01-31,Deposit by Pix,deposit-2026-0001",
    "closing,,,,,,100.00,,,,,",
)
REPORT_OR_CSV = _or_csv("account,type,currency,debits,credits,balance", "CASH,asset,BRL,100.00,0.00,100.00")

_OF_DAYS = "a date is a day of the tenant's zone, a time without a zone is UTC"
From = Annotated[Moment | None, Query(alias="from", description=f"Inclusive; {_OF_DAYS}")]
To = Annotated[Moment | None, Query(alias="to", description=f"Exclusive; {_OF_DAYS}")]
AsOf = Annotated[Moment | None, Query(description=f"Effective by then, inclusive; {_OF_DAYS}")]
KnownAt = Annotated[Moment | None, Query(description=f"Recorded by then, inclusive; {_OF_DAYS}")]


def _currency(
    currency: Annotated[str | None, Query(description="ISO 4217, such as BRL", examples=["BRL"])] = None,
) -> str | None:
    try:
        if currency is not None:
            exponent_of(currency)
    except UnknownCurrency as error:
        raise InvalidParameter("currency", error.detail) from None
    return currency


Currency = Annotated[str | None, Depends(_currency)]


def _span(start: From = None, end: To = None, as_of: AsOf = None) -> Span:
    return Span(start, end, as_of)


@router.get(
    "/accounts/{code}/balances",
    summary="Show the balances of an account",
    response_model=list[BalanceAsOfDocument],
    responses=PROBLEMS,
)
async def list_account_balances(
    caller: Reader, code: AccountCode, resources: Shared, as_of: AsOf = None, known_at: KnownAt = None
) -> Response:
    """One balance for each currency: what is posted, what is pending, and what is available.

    With `as_of` or `known_at` what was posted by then: by the effective time, by that of the recording, or by both.
    """
    async with resources.database.transaction([caller.tenant_id]) as conn:
        if await find_account(conn, caller.tenant_id, code) is None:
            raise AccountNotFound
        balances = await list_running_balances(conn, caller.tenant_id, code)
        if as_of is None and known_at is None:
            return await json_array(map(show_running_balance, balances))
        now = {balance.currency: balance for balance in balances}
        then = await use_cases.balances_as_of(conn, caller.tenant_id, code, as_of=as_of, known_at=known_at)
    return await json_array(show_balance_as_of(balance, now[balance.currency]) for balance in then)


@router.get(
    "/accounts/{code}/statement",
    summary="Show a statement of an account",
    response_model=StatementDocument,
    responses=STATEMENT_OR_CSV,
)
async def show_account_statement(
    caller: Reader,
    request: Request,
    code: AccountCode,
    currency: Currency,
    page: Annotated[Page, Depends(page_of("statement", is_filtered=True))],
    resources: Shared,
    start: From = None,
    end: To = None,
    by: Annotated[By, Query(description="Which of the two times orders and bounds it")] = By.EFFECTIVE,
) -> Response:
    """Opening balance, lines with their running balance, closing balance; as CSV with `Accept: text/csv`.

    The next page is in `Link: <…>; rel="next"` (RFC 8288), and opens with what this one closes with. Without
    `currency` it is the one that the account moved in.
    """
    continued = Continuation.read(page.after_text, code) if page.after_text else None
    wanted = StatementWanted(code, currency, by, start, end, continued)
    async with resources.database.transaction([caller.tenant_id]) as conn:
        statement, has_more = await use_cases.make_statement(conn, caller.tenant_id, wanted, page.limit)
    if _wants_csv(request):
        response = _csv(statement_as_csv(statement), f"statement-{code}")
    else:
        body = show_statement(statement).model_dump_json(by_alias=True)
        response = Response(body, media_type="application/json", headers=_VARY)
    if has_more:
        last = statement.lines[-1]
        page.lead_to_next(response, Continuation(code, last.place(by), last.balance).as_text())
    return response


Depth = Annotated[int | None, Query(ge=1, le=64, description="Rolls accounts up to this many dotted parts of a code")]
Spanned = Annotated[Span, Depends(_span)]


@router.get("/reports/trial-balance", summary="Trial balance", response_model=TrialBalance, responses=REPORT_OR_CSV)
async def show_trial_balance(
    caller: Reader, request: Request, span: Spanned, currency: Currency, resources: Shared, depth: Depth = None
) -> Response:
    """What every account was debited and credited; `as_of` a time, or from `from` to `to`."""
    return await _report(ReportName.TRIAL_BALANCE, caller, request, span, currency, resources, depth)


@router.get("/reports/balance-sheet", summary="Balance sheet", response_model=BalanceSheet, responses=REPORT_OR_CSV)
async def show_balance_sheet(
    caller: Reader, request: Request, span: Spanned, currency: Currency, resources: Shared, depth: Depth = None
) -> Response:
    """Assets, liabilities and equity `as_of` a time; from `from` to `to` by how much each changed."""
    return await _report(ReportName.BALANCE_SHEET, caller, request, span, currency, resources, depth)


@router.get(
    "/reports/income-statement", summary="Income statement", response_model=IncomeStatement, responses=REPORT_OR_CSV
)
async def show_income_statement(
    caller: Reader, request: Request, span: Spanned, currency: Currency, resources: Shared, depth: Depth = None
) -> Response:
    """Revenue and expenses from `from` to `to`, or all of them `as_of` a time."""
    return await _report(ReportName.INCOME_STATEMENT, caller, request, span, currency, resources, depth)


async def _report(
    name: ReportName,
    caller: Caller,
    request: Request,
    span: Span,
    currency: str | None,
    resources: Resources,
    depth: int | None,
) -> Response:
    async with resources.database.transaction([caller.tenant_id]) as conn:
        report = await use_cases.report(conn, caller.tenant_id, name, span, currency=currency, depth=depth)
    if _wants_csv(request):
        return _csv(report_as_csv(report), name.value)
    return Response(json.dumps(show_report(report)), media_type="application/json", headers=_VARY)


# A cache must not give one the response that was made for the other (RFC 9110, section 12.5.5).
_VARY = {"Vary": "Accept"}


def _wants_csv(request: Request) -> bool:
    """Whether CSV is preferred to JSON: of equals the one that is named first."""
    named = [part.partition(";") for part in (single_header(request, "accept") or "").split(",")]
    qualities = {media.strip().lower(): _quality(parameters) for media, _, parameters in named}
    csv, plain = qualities.get(CSV, 0.0), qualities.get("application/json", 0.0)
    return csv > plain or (csv == plain > 0 and list(qualities).index(CSV) < list(qualities).index("application/json"))


def _quality(parameters: str) -> float:
    try:
        return max(0.0, float(parameters.lower().partition("q=")[2].partition(";")[0] or "1"))
    except ValueError:
        return 0.0


def _csv(body: bytes, name: str) -> Response:
    headers = {**_VARY, "Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(body, media_type=f"{CSV}; charset=utf-8; header=present", headers=headers)
