"""The HTTP routes of accounts: create, read, change, close and reopen, and their balances as they are now."""

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from uuid_utils.compat import uuid7

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.commands import Operation, RequiredKey, rendering
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.commit.idempotency import fingerprint
from payments_ledger.errors import AccountNotFound, Rejected
from payments_ledger.ledger.accounts import Account, AccountState, AccountType
from payments_ledger.ledger.balances.queries import list_limits, list_running_balances
from payments_ledger.ledger.chart import queries
from payments_ledger.ledger.chart.queries import AccountFilter
from payments_ledger.ledger.chart.schemas import (
    CODE,
    AccountChange,
    AccountDocument,
    AccountRequest,
    Code,
    OwnerRef,
    RunningBalanceDocument,
    account_body,
    show_account,
    show_running_balance,
)
from payments_ledger.ledger.chart.use_cases import (
    ChartCommand,
    CloseAccount,
    CreateAccount,
    ReopenAccount,
    UpdateAccount,
    change_chart,
)
from payments_ledger.web.metadata_filter import METADATA_PARAMETER, MetadataFilter
from payments_ledger.web.paging import Page, json_array
from payments_ledger.web.problems import BODY_PROBLEMS, documented
from payments_ledger.web.routes import Route

PATH = "/v1/ledger/accounts"

router = APIRouter(prefix=PATH, tags=["ledger"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.LEDGER_READ))]
Writer = Annotated[Caller, Depends(caller_with(Permission.LEDGER_WRITE))]
AccountCode = Annotated[str, CODE, Path(description="The account", examples=["WALLET.C001"])]

READ_PROBLEMS = documented(*TENANT_PROBLEMS)
CHANGE_PROBLEMS = documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT)
BODY_CHANGE_PROBLEMS = CHANGE_PROBLEMS | documented(*BODY_PROBLEMS)

CREATE: Operation[ChartCommand, Account | Rejected] = Operation(
    change_chart,
    rendering(account_body, HTTPStatus.CREATED, location=lambda account: f"{PATH}/{account.code}"),
)
CHANGE: Operation[ChartCommand, Account | Rejected] = Operation(change_chart, rendering(account_body))


@router.post(
    "",
    summary="Create an account",
    status_code=HTTPStatus.CREATED,
    response_model=AccountDocument,
    responses=BODY_CHANGE_PROBLEMS,
)
async def create_account(caller: Writer, key: RequiredKey, body: AccountRequest, resources: Shared) -> Response:
    """Adds an account to the chart. The Idempotency-Key is required."""
    command = CreateAccount(caller.tenant_id, replace(body.account, id=uuid7()), caller.origin)
    return await CREATE.respond(
        resources,
        caller,
        command,
        path=PATH,
        key=key,
        asked_for=fingerprint(_asked_for(body.account)),
        commands=resources.ledger_commands,
    )


def _account_filter(
    metadata: MetadataFilter,
    prefix: Annotated[Code | None, Query(description="A code: it and those below it, by whole dotted parts")] = None,
    type_: Annotated[AccountType | None, Query(alias="type", description="Only accounts of this type")] = None,
    state: Annotated[AccountState | None, Query(description="Only open ones, or only closed ones")] = None,
    owner_ref: Annotated[OwnerRef | None, Query(description="Only accounts of this owner")] = None,
) -> AccountFilter:
    return AccountFilter(prefix, type_, state, owner_ref, metadata)


@router.get(
    "",
    summary="List accounts",
    response_model=list[AccountDocument],
    responses=READ_PROBLEMS,
    openapi_extra=METADATA_PARAMETER,
)
async def list_accounts(
    caller: Reader,
    wanted: Annotated[AccountFilter, Depends(_account_filter)],
    page: Annotated[Page, Depends(page_of("accounts", is_filtered=True))],
    resources: Shared,
) -> Response:
    """The accounts in byte order of their codes; the next page is in `Link: <…>; rel="next"` (RFC 8288)."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        accounts = await queries.list_accounts(
            conn, caller.tenant_id, wanted, after=page.after_code, limit=page.rows_wanted
        )
        limits = await list_limits(conn, caller.tenant_id, [account.code for account in accounts])
    found = [replace(account, limits=limits.get(account.code, ())) for account in accounts]
    return await page.response_by_code(found, show_account, lambda account: account.code)


@router.get("/{code}", summary="Show an account", response_model=AccountDocument, responses=READ_PROBLEMS)
async def get_account(caller: Reader, code: AccountCode, resources: Shared) -> Response:
    """The account and its limits."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        account = await queries.find_account(conn, caller.tenant_id, code)
        limits = await list_limits(conn, caller.tenant_id, [code])
    if account is None:
        raise AccountNotFound
    return Response(account_body(replace(account, limits=limits.get(code, ()))), media_type="application/json")


@router.patch("/{code}", summary="Change an account", response_model=AccountDocument, responses=BODY_CHANGE_PROBLEMS)
async def update_account(caller: Writer, code: AccountCode, body: AccountChange, resources: Shared) -> Response:
    """Changes name, owner, metadata and limits. A limit that the balance is outside of is refused."""
    command = UpdateAccount(
        caller.tenant_id,
        code,
        caller.origin,
        name=body.name,
        owner_ref=body.owner_ref,
        removes_owner_ref=body.removes_owner_ref,
        metadata=body.metadata,
        limits=body.limits_then,
    )
    return await CHANGE.respond(resources, caller, command, path=f"{PATH}/{code}", commands=resources.ledger_commands)


@router.post("/{code}/close", summary="Close an account", response_model=AccountDocument, responses=CHANGE_PROBLEMS)
async def close_account(caller: Writer, key: RequiredKey, code: AccountCode, resources: Shared) -> Response:
    """Nothing can be posted to it from then on. Its balance must be zero, and nothing of it pending."""
    return await _change_state(resources, caller, CloseAccount(caller.tenant_id, code, caller.origin), "close", key)


@router.post("/{code}/reopen", summary="Reopen an account", response_model=AccountDocument, responses=CHANGE_PROBLEMS)
async def reopen_account(caller: Writer, key: RequiredKey, code: AccountCode, resources: Shared) -> Response:
    """Undoes a closing."""
    return await _change_state(resources, caller, ReopenAccount(caller.tenant_id, code, caller.origin), "reopen", key)


@router.get(
    "/{code}/balances",
    summary="Show the balances of an account",
    response_model=list[RunningBalanceDocument],
    responses=READ_PROBLEMS,
)
async def list_account_balances(caller: Reader, code: AccountCode, resources: Shared) -> Response:
    """One balance for each currency: what is posted, what is pending, and what is available."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        account = await queries.find_account(conn, caller.tenant_id, code)
        balances = await list_running_balances(conn, caller.tenant_id, code)
    if account is None:
        raise AccountNotFound
    return await json_array(map(show_running_balance, balances))


async def _change_state(
    resources: Resources, caller: Caller, command: CloseAccount | ReopenAccount, verb: str, key: str
) -> Response:
    path = f"{PATH}/{command.code}/{verb}"
    return await CHANGE.respond(
        resources,
        caller,
        command,
        path=path,
        key=key,
        asked_for=fingerprint(path),
        commands=resources.ledger_commands,
    )


def _asked_for(account: Account) -> str:
    """The account as text, whatever its spelling in the request was."""
    limits = [[limit.currency, limit.minimum, limit.maximum] for limit in account.limits]
    metadata = dict(account.metadata)
    return json.dumps(
        [account.code, account.name, account.type, account.normal_side, account.owner_ref, metadata, limits],
        sort_keys=True,
    )
