"""The HTTP routes of the ledger: entries, newest first, and balances."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, CallerRoute, caller_with
from payments_ledger.access.policy import Permission
from payments_ledger.ledger import queries
from payments_ledger.ledger.accounts import AccountType
from payments_ledger.ledger.entry import Balance, PostedEntry, Posting
from payments_ledger.ledger.period import Period
from payments_ledger.money import format_amount
from payments_ledger.postgres.database import Database
from payments_ledger.web.cursors import CursorSigner
from payments_ledger.web.paging import PAGE_LIMIT, Cursor, Limit, json_array, link_to_next
from payments_ledger.web.parameters import Instant
from payments_ledger.web.problems import documented

router = APIRouter(prefix="/v1/ledger", tags=["ledger"], route_class=CallerRoute)

Reader = Annotated[Caller, Depends(caller_with(Permission.LEDGER_READ))]
From = Annotated[Instant | None, Query(alias="from", description="Inclusive; UTC without a zone")]
To = Annotated[Instant | None, Query(alias="to", description="Exclusive; UTC without a zone")]

PROBLEMS = documented(*TENANT_PROBLEMS)


class EntryLine(BaseModel):
    """One side of a posting: each posting is shown as a DEBIT and a CREDIT of the same amount."""

    side: Literal["DEBIT", "CREDIT"]
    account: str
    amount: str
    currency: str


class LedgerEntry(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-9b2c-7d11-8e55-0242ac120002",
                    "payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
                    "posted_at": "2026-01-31T12:00:01Z",
                    "lines": [
                        {"side": "DEBIT", "account": "CASH", "amount": "100.00", "currency": "BRL"},
                        {"side": "CREDIT", "account": "REVENUE", "amount": "100.00", "currency": "BRL"},
                    ],
                }
            ]
        }
    )

    id: str
    payment_intent_id: str
    posted_at: datetime
    lines: list[EntryLine]


class AccountBalance(BaseModel):
    """`balance` is positive on the account's normal side (debit for assets and expenses)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "CASH",
                    "type": "asset",
                    "currency": "BRL",
                    "debits_total": "100.00",
                    "credits_total": "0.00",
                    "balance": "100.00",
                }
            ]
        }
    )

    account: str
    type: AccountType
    currency: str
    debits_total: str
    credits_total: str
    balance: str


@router.get("/entries", summary="List ledger entries", response_model=list[LedgerEntry], responses=PROBLEMS)
async def list_entries(
    request: Request,
    caller: Reader,
    start: From = None,
    end: To = None,
    limit: Limit = PAGE_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """The tenant's entries, newest first; the next page is in `Link: <…>; rel="next"` (RFC 8288)."""
    period = Period(start, end)
    cursors: CursorSigner = request.app.state.cursors
    purpose = f"entries {caller.tenant_id}"
    after = queries.Position(*cursors.read(purpose, cursor)) if cursor else None
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        entries = await queries.list_entries(conn, caller.tenant_id, period, after=after, limit=limit + 1)
    # Written once: from a returned list FastAPI would make every line anew, to be sure of its own types.
    response = await json_array(map(_entry, entries[:limit]))
    if len(entries) > limit:
        last = entries[limit - 1]
        response.headers["Link"] = link_to_next(request, cursors.write(purpose, last.posted_at, last.entry.id))
    return response


@router.get("/balances", summary="List account balances", response_model=list[AccountBalance], responses=PROBLEMS)
async def list_balances(request: Request, caller: Reader, start: From = None, end: To = None) -> Response:
    """The sums of each account and currency that moved, over all time or from `from` to `to`."""
    period = Period(start, end)
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        balances = await queries.list_balances(conn, caller.tenant_id, period)
    return await json_array(map(_balance, balances))


def _entry(posted: PostedEntry) -> LedgerEntry:
    return LedgerEntry(
        id=str(posted.entry.id),
        payment_intent_id=str(posted.entry.source_id),
        posted_at=posted.posted_at,
        lines=[line for posting in posted.entry.postings for line in _lines(posting)],
    )


def _lines(posting: Posting) -> tuple[EntryLine, EntryLine]:
    currency = posting.money.currency
    amount = format_amount(posting.money.amount, currency)
    return (
        EntryLine(side="DEBIT", account=posting.debit_account, amount=amount, currency=currency),
        EntryLine(side="CREDIT", account=posting.credit_account, amount=amount, currency=currency),
    )


def _balance(balance: Balance) -> AccountBalance:
    currency = balance.currency
    return AccountBalance(
        account=balance.account,
        type=balance.type,
        currency=currency,
        debits_total=format_amount(balance.debits_total, currency),
        credits_total=format_amount(balance.credits_total, currency),
        balance=format_amount(balance.balance, currency),
    )
