"""What can be done with accounts: one use case for all of it, so that one order of locks serves a whole batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, assert_never

from payments_ledger.commit.audit import AuditRecord, Origin, change, defer_audit
from payments_ledger.commit.events import defer_events
from payments_ledger.errors import (
    AccountExists,
    AccountInUse,
    AccountNotFound,
    Fault,
    InvalidRequest,
    LedgerError,
    LimitExceeded,
    Rejected,
)
from payments_ledger.ledger.accounts import OF_PAYMENTS, Account, Limit
from payments_ledger.ledger.balances.balance import BalanceKey, RunningBalance
from payments_ledger.ledger.balances.queries import (
    list_running_balances,
    lock_balances_of,
    make_balances,
    save_balances,
)
from payments_ledger.ledger.chart import queries
from payments_ledger.ledger.chart.events import CLOSED, CREATED, REOPENED, event_of
from payments_ledger.ledger.chart.queries import AccountKey
from payments_ledger.money import format_amount
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.validation.metadata import merge_metadata


@dataclass(frozen=True, slots=True)
class CreateAccount:
    """Adds an account, with its limits, under an id that the caller has chosen (UUIDv7)."""

    tenant_id: str
    account: Account
    origin: Origin

    @property
    def code(self) -> str:
        """The account that it is about."""
        return self.account.code


@dataclass(frozen=True, slots=True)
class UpdateAccount:
    """Merges what is given into the account (RFC 7396); None is not given, but for an `owner_ref` that is removed.

    In `metadata` None removes a key. `limits` replace all that there were.
    """

    tenant_id: str
    code: str
    origin: Origin
    name: str | None = None
    owner_ref: str | None = None
    removes_owner_ref: bool = False
    metadata: Mapping[str, str | None] | None = None
    limits: tuple[Limit, ...] | None = None


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """Nothing can be posted to it from then on."""

    tenant_id: str
    code: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class ReopenAccount:
    """Undoes a closing."""

    tenant_id: str
    code: str
    origin: Origin


type ChartCommand = CreateAccount | UpdateAccount | CloseAccount | ReopenAccount


@dataclass(frozen=True, slots=True)
class _Change:
    """An account as it was and as it will be, why, and the event that tells of it, if any."""

    tenant_id: str
    before: Account | None
    after: Account
    action: str
    event: str | None
    origin: Origin


@dataclass
class _Chart:
    """The accounts of a batch, with the balances that are kept of them."""

    now: datetime
    accounts: dict[AccountKey, Account]
    balances: dict[BalanceKey, RunningBalance]
    changes: list[_Change] = field(default_factory=list)


async def change_chart(conn: Connection, commands: Sequence[ChartCommand]) -> list[Account | Rejected]:
    """The accounts as they are then.

    Rejected: AccountExists and LimitExceeded (create); AccountNotFound (all others); LimitExceeded, and InvalidRequest
    for limits of an account that payments post to (update); AccountInUse (close).
    """
    chart = await _open_chart(conn, commands)
    outcomes: list[Account | Rejected] = []
    for command in commands:
        try:
            outcomes.append(await _carry_out(conn, chart, command))
        except LedgerError as error:
            outcomes.append(Rejected(error))
    if chart.changes:
        await _write(conn, chart)
    return outcomes


async def _open_chart(conn: Connection, commands: Sequence[ChartCommand]) -> _Chart:
    now = await transaction_time(conn)
    accounts = await queries.lock_accounts(
        conn, {(command.tenant_id, command.code) for command in commands}, alone=True
    )
    limited = {
        (command.tenant_id, command.code, limit.currency)
        for command in commands
        if isinstance(command, UpdateAccount) and command.code not in OF_PAYMENTS
        for limit in command.limits or ()
    }
    if limited:
        await make_balances(conn, limited, ((tenant_id, account) for (tenant_id, _), account in accounts.items()))
    balances = await lock_balances_of(conn, accounts.keys())
    for tenant_id, code in accounts:
        kept = [balance for key, balance in balances.items() if key[:2] == (tenant_id, code)]
        limits = tuple(Limit(balance.currency, balance.minimum, balance.maximum) for balance in kept)
        accounts[tenant_id, code] = replace(
            accounts[tenant_id, code], limits=tuple(limit for limit in limits if not limit.is_none)
        )
    return _Chart(now, accounts, balances)


async def _carry_out(conn: Connection, chart: _Chart, command: ChartCommand) -> Account:
    if isinstance(command, CreateAccount):
        return _create(chart, command)
    before = chart.accounts.get((command.tenant_id, command.code))
    if before is None:
        raise AccountNotFound
    match command:
        case UpdateAccount():
            return _update(chart, command, before)
        case CloseAccount():
            if before.closed_at is not None:
                return before
            await _require_unused(conn, chart, command)
            after = replace(before, closed_at=chart.now, version=before.version + 1)
            return _changed(chart, _Change(command.tenant_id, before, after, "account.close", CLOSED, command.origin))
        case ReopenAccount():
            if before.closed_at is None:
                return before
            after = replace(before, closed_at=None, version=before.version + 1)
            return _changed(
                chart, _Change(command.tenant_id, before, after, "account.reopen", REOPENED, command.origin)
            )
    assert_never(command)


def _create(chart: _Chart, command: CreateAccount) -> Account:
    if (command.tenant_id, command.code) in chart.accounts:
        raise AccountExists
    account = replace(command.account, version=1, created_at=chart.now)
    balances = {
        (command.tenant_id, account.code, limit.currency): RunningBalance(
            account.code,
            limit.currency,
            account.normal_side,
            minimum=limit.minimum,
            maximum=limit.maximum,
        )
        for limit in account.limits
    }
    _require_within_limits(balances.values())
    chart.balances |= balances
    return _changed(chart, _Change(command.tenant_id, None, account, "account.create", CREATED, command.origin))


def _update(chart: _Chart, command: UpdateAccount, before: Account) -> Account:
    if command.limits and before.code in OF_PAYMENTS:
        raise InvalidRequest([Fault(f"payments post to {before.code}, so it cannot have any", ("limits",))])
    balances = {} if command.limits is None else _limited(chart, command.tenant_id, before.code, command.limits)
    _require_within_limits(balances.values())
    after = replace(
        before,
        name=before.name if command.name is None else command.name,
        owner_ref=None if command.removes_owner_ref else command.owner_ref or before.owner_ref,
        metadata=merge_metadata(before.metadata, command.metadata or {}),
        limits=before.limits if command.limits is None else command.limits,
    )
    chart.balances |= balances
    return _changed(chart, _Change(command.tenant_id, before, after, "account.update", None, command.origin))


def _limited(chart: _Chart, tenant_id: str, code: str, limits: Iterable[Limit]) -> dict[BalanceKey, RunningBalance]:
    """The kept balances of the account, with these limits and no others."""
    by_currency = {limit.currency: limit for limit in limits}
    account = chart.accounts[tenant_id, code]
    kept = {key: balance for key, balance in chart.balances.items() if key[:2] == (tenant_id, code)}
    # An account that was added in this very batch has none yet.
    missing = {
        (tenant_id, code, currency): RunningBalance(code, currency, account.normal_side)
        for currency in by_currency
        if (tenant_id, code, currency) not in kept
    }
    return {
        key: replace(
            balance,
            minimum=by_currency[key[2]].minimum if key[2] in by_currency else None,
            maximum=by_currency[key[2]].maximum if key[2] in by_currency else None,
        )
        for key, balance in (kept | missing).items()
    }


def _require_within_limits(balances: Iterable[RunningBalance]) -> None:
    for balance in balances:
        if balance.is_below_minimum or balance.is_above_maximum:
            found = format_amount(balance.posted, balance.currency)
            raise LimitExceeded(f"The balance of {balance.account}, {found} {balance.currency}, is outside this limit.")


async def _require_unused(conn: Connection, chart: _Chart, command: CloseAccount) -> None:
    if command.code in OF_PAYMENTS:
        raise AccountInUse(f"Payments post to {command.code}.")
    if (command.tenant_id, None, command.code) in {
        (change.tenant_id, change.before, change.after.code) for change in chart.changes
    }:
        # Added in this very batch, so nothing was posted to it.
        return
    for balance in await list_running_balances(conn, command.tenant_id, command.code):
        if balance.posted:
            found = format_amount(balance.posted, balance.currency)
            raise AccountInUse(f"The balance of {command.code} is {found} {balance.currency}.")
        if balance.pending_debits or balance.pending_credits:
            raise AccountInUse(f"A pending transaction holds {balance.currency} of {command.code}.")


def _changed(chart: _Chart, made: _Change) -> Account:
    chart.accounts[made.tenant_id, made.after.code] = made.after
    chart.changes.append(made)
    return made.after


# ----------------------------------------------------------------------------------------------------------------------
# Write


async def _write(conn: Connection, chart: _Chart) -> None:
    new = {(made.tenant_id, made.after.code) for made in chart.changes if made.before is None}
    changed = {(made.tenant_id, made.after.code) for made in chart.changes}
    if new:
        await queries.add_accounts(conn, [(key[0], replace(chart.accounts[key], version=1)) for key in sorted(new)])
    balances = {key: balance for key, balance in chart.balances.items() if key[:2] in changed}
    if balances:
        await make_balances(conn, balances.keys(), ((key[0], chart.accounts[key]) for key in changed))
        await save_balances(conn, [(key[0], balance) for key, balance in balances.items()])
    if known := {(made.tenant_id, made.after.code) for made in chart.changes if made.before is not None}:
        await queries.save_accounts(conn, [(key[0], chart.accounts[key]) for key in sorted(known)])
    defer_events(
        conn,
        [
            event_of(made.event, made.tenant_id, made.after, made.origin.trace, chart.now)
            for made in chart.changes
            if made.event
        ],
    )
    defer_audit(
        conn,
        [
            AuditRecord(
                made.tenant_id,
                made.origin,
                made.action,
                made.after.code,
                change(_detail(made.before) if made.before else None, _detail(made.after)),
            )
            for made in chart.changes
        ],
    )


def _detail(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "type": account.type,
        "normal_side": account.normal_side,
        "owner_ref": account.owner_ref,
        "metadata": dict(account.metadata),
        "state": account.state,
        "limits": [
            {
                "currency": limit.currency,
                "balance_min": _text(limit.minimum, limit.currency),
                "balance_max": _text(limit.maximum, limit.currency),
            }
            for limit in account.limits
        ],
    }


def _text(amount: int | None, currency: str) -> str | None:
    return None if amount is None else format_amount(amount, currency)
