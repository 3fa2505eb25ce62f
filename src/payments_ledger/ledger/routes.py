"""The HTTP routes of the ledger: entries, newest first, and balances."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Shared
from payments_ledger.ledger import queries
from payments_ledger.ledger.schemas import (
    AccountBalance,
    LedgerEntry,
    RequestedPeriod,
    show_balance,
    show_entry,
)
from payments_ledger.web.paging import Page, json_array
from payments_ledger.web.problems import documented
from payments_ledger.web.routes import Route

router = APIRouter(prefix="/v1/ledger", tags=["ledger"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.LEDGER_READ))]

PROBLEMS = documented(*TENANT_PROBLEMS)


@router.get("/entries", summary="List ledger entries", response_model=list[LedgerEntry], responses=PROBLEMS)
async def list_entries(
    caller: Reader, period: RequestedPeriod, page: Annotated[Page, Depends(page_of("entries"))], resources: Shared
) -> Response:
    """The tenant's entries, newest first; the next page is in `Link: <…>; rel="next"` (RFC 8288)."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        entries = await queries.list_entries(conn, caller.tenant_id, period, after=page.after, limit=page.rows_wanted)
    return await page.response(entries, show_entry, lambda posted: (posted.posted_at, posted.entry.id))


@router.get("/balances", summary="List account balances", response_model=list[AccountBalance], responses=PROBLEMS)
async def list_balances(caller: Reader, period: RequestedPeriod, resources: Shared) -> Response:
    """The sums of each account and currency that moved, over all time or from `from` to `to`."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        balances = await queries.list_balances(conn, caller.tenant_id, period)
    return await json_array(map(show_balance, balances))
