"""A tenant's ledger in the operator's hands: accounts with their balances, transactions; open, close, void, reverse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.commit.audit import Origin
from payments_ledger.errors import AccountNotFound, Rejected, TransactionNotFound
from payments_ledger.ledger.accounts import Account
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.balances.queries import list_limits, list_running_balances
from payments_ledger.ledger.chart import queries as chart
from payments_ledger.ledger.chart.queries import AccountFilter
from payments_ledger.ledger.chart.use_cases import (
    ChartCommand,
    CloseAccount,
    CreateAccount,
    ReopenAccount,
    change_chart,
)
from payments_ledger.ledger.currencies import load_currencies
from payments_ledger.ledger.transactions import queries as transactions
from payments_ledger.ledger.transactions.queries import TransactionFilter
from payments_ledger.ledger.transactions.transaction import Transaction
from payments_ledger.ledger.transactions.use_cases import (
    BookCommand,
    ReverseTransaction,
    VoidHold,
    change_book,
)
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.tenants.queries import require_tenant


@asynccontextmanager
async def _books_of(owner: Database, tenant_id: str) -> AsyncIterator[Connection]:
    """A transaction that sees the tenant; amounts are understood. Raises UnknownTenant or Unavailable."""
    async with owner.transaction([tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        await load_currencies(conn)
        yield conn


async def list_accounts(owner: Database, tenant_id: str, wanted: AccountFilter, limit: int) -> list[Account]:
    """In byte order of their codes, with their limits. Raises UnknownTenant or Unavailable."""
    async with _books_of(owner, tenant_id) as conn:
        found = await chart.list_accounts(conn, tenant_id, wanted, after=None, limit=limit)
        limits = await list_limits(conn, tenant_id, [account.code for account in found])
    return [replace(account, limits=limits.get(account.code, ())) for account in found]


async def show_balances(owner: Database, tenant_id: str, code: str) -> list[RunningBalance]:
    """Of one account, by currency. Raises UnknownTenant, AccountNotFound or Unavailable."""
    async with _books_of(owner, tenant_id) as conn:
        if await chart.find_account(conn, tenant_id, code) is None:
            raise AccountNotFound
        return await list_running_balances(conn, tenant_id, code)


async def create_account(owner: Database, origin: Origin, tenant_id: str, account: Account) -> Account:
    """Raises UnknownTenant, AccountExists or Unavailable."""
    return await _change_chart(owner, CreateAccount(tenant_id, replace(account, id=uuid7()), origin))


async def close_account(owner: Database, origin: Origin, tenant_id: str, code: str) -> Account:
    """Raises UnknownTenant, AccountNotFound, AccountInUse or Unavailable."""
    return await _change_chart(owner, CloseAccount(tenant_id, code, origin))


async def reopen_account(owner: Database, origin: Origin, tenant_id: str, code: str) -> Account:
    """Raises UnknownTenant, AccountNotFound or Unavailable."""
    return await _change_chart(owner, ReopenAccount(tenant_id, code, origin))


async def list_transactions(
    owner: Database, tenant_id: str, wanted: TransactionFilter, limit: int
) -> list[Transaction]:
    """The newest first. Raises UnknownTenant or Unavailable."""
    async with _books_of(owner, tenant_id) as conn:
        return await transactions.list_transactions(conn, tenant_id, wanted, after=None, limit=limit)


async def find_transaction(owner: Database, tenant_id: str, transaction_id: UUID) -> Transaction:
    """Raises UnknownTenant, TransactionNotFound or Unavailable."""
    async with _books_of(owner, tenant_id) as conn:
        found = await transactions.find_transactions(conn, tenant_id, [transaction_id])
    if not found:
        raise TransactionNotFound
    return found[0]


async def void_transaction(owner: Database, origin: Origin, tenant_id: str, transaction_id: UUID) -> Transaction:
    """Raises UnknownTenant, what Book.void raises, or Unavailable."""
    return await _change_book(owner, VoidHold(tenant_id, transaction_id, origin))


async def reverse_transaction(
    owner: Database,
    origin: Origin,
    tenant_id: str,
    transaction_id: UUID,
    *,
    effective_at: datetime | Literal["original"],
    reason: str | None,
) -> Transaction:
    """The reversal. Raises UnknownTenant, what Book.reverse raises, or Unavailable."""
    return await _change_book(
        owner, ReverseTransaction(tenant_id, transaction_id, uuid7(), effective_at, reason, origin)
    )


async def _change_chart(owner: Database, command: ChartCommand) -> Account:
    async with _books_of(owner, command.tenant_id) as conn:
        [outcome] = await change_chart(conn, [command])
        if isinstance(outcome, Rejected):
            raise outcome.error
    return outcome


async def _change_book(owner: Database, command: BookCommand) -> Transaction:
    async with _books_of(owner, command.tenant_id) as conn:
        [outcome] = await change_book(conn, [command])
        if isinstance(outcome, Rejected):
            raise outcome.error
    assert isinstance(outcome, Transaction)
    return outcome
