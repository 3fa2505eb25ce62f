"""What the operator's commands do to a tenant's ledger: accounts and transactions, in the operator's name."""

import pytest

from payments_ledger.commit.audit import Origin
from payments_ledger.errors import AccountExists, AccountInUse, AccountNotFound, NotPending, UnknownTenant
from payments_ledger.ledger.accounts import Account, AccountType
from payments_ledger.ledger.chart.queries import AccountFilter
from payments_ledger.ledger.transactions.queries import TransactionFilter
from payments_ledger.ledger.transactions.transaction import Status
from payments_ledger.operations import ledger
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import Trace
from tests.integration.conftest import Api
from tests.integration.ledger.journal import Journal

pytestmark = pytest.mark.anyio

OPERATOR = Origin("cli:tester", None, Trace("corr-operator"))


async def test_an_operator_opens_closes_and_reopens_accounts(owner: Database, tenant: str) -> None:
    account = Account("PETTY", "Petty cash", AccountType.ASSET)
    created = await ledger.create_account(owner, OPERATOR, tenant, account)
    assert (created.code, created.version) == ("PETTY", 1)
    with pytest.raises(AccountExists):
        await ledger.create_account(owner, OPERATOR, tenant, account)
    assert (await ledger.close_account(owner, OPERATOR, tenant, "PETTY")).closed_at
    assert not (await ledger.reopen_account(owner, OPERATOR, tenant, "PETTY")).closed_at
    listed = await ledger.list_accounts(owner, tenant, AccountFilter(), 10)
    assert [each.code for each in listed] == ["CASH", "PETTY", "REVENUE"]
    assert await ledger.show_balances(owner, tenant, "PETTY") == []
    with pytest.raises(AccountInUse):
        await ledger.close_account(owner, OPERATOR, tenant, "CASH")
    with pytest.raises(AccountNotFound):
        await ledger.show_balances(owner, tenant, "NOWHERE")
    with pytest.raises(UnknownTenant):
        await ledger.list_accounts(owner, "nobody", AccountFilter(), 10)
    async with owner.transaction([tenant]) as conn:
        cursor = await conn.execute("SELECT principal, action FROM audit_log ORDER BY id")
        actions = ["account.create", "account.close", "account.reopen"]
        assert await cursor.fetchall() == [("cli:tester", action) for action in actions]


async def test_an_operator_voids_and_reverses_transactions(owner: Database, api: Api, tenant: str) -> None:
    journal = Journal(api, tenant)
    await journal.account("BANK", "asset")
    await journal.wallet("A")
    moved = await journal.move("BANK", "A", "1.00", reference="r")
    held = await journal.hold("A", "BANK", "0.40")
    [found] = await ledger.list_transactions(owner, tenant, TransactionFilter(reference="r"), 10)
    assert await ledger.find_transaction(owner, tenant, found.id) == found
    [pending] = await ledger.list_transactions(owner, tenant, TransactionFilter(status=Status.PENDING), 10)
    assert str(pending.id) == held["id"]
    assert (await ledger.void_transaction(owner, OPERATOR, tenant, pending.id)).status is Status.VOIDED
    with pytest.raises(NotPending):
        await ledger.void_transaction(owner, OPERATOR, tenant, pending.id)
    reversal = await ledger.reverse_transaction(
        owner, OPERATOR, tenant, found.id, effective_at="original", reason="a mistake"
    )
    assert (str(reversal.reverses), reversal.reason) == (moved["id"], "a mistake")
    assert (await journal.balance("A"))["posted"] == "0.00"
