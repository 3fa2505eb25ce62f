"""The use case over a batch of commands: each sees what those before it did, and nothing of what was refused."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest
from uuid_utils.compat import uuid7

from payments_ledger.errors import InsufficientFunds, NotPending, Rejected
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.transaction import NewTransaction, Status, Transaction
from payments_ledger.ledger.transactions.use_cases import (
    AtomicRefusal,
    BookCommand,
    PostHold,
    Recorded,
    RecordTransactions,
    ReverseTransaction,
    VoidHold,
    change_book,
)
from payments_ledger.money import Money
from payments_ledger.postgres.database import Database
from tests.integration.books import ORIGIN
from tests.integration.ledger.journal import Journal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def books(journal: Journal) -> Journal:
    await journal.account("BANK", "asset")
    await journal.wallet("A")
    await journal.wallet("B")
    await journal.move("BANK", "A", "1.00")
    return journal


def moving(debit: str, credit: str, amount: int, *, is_pending: bool = False) -> NewTransaction:
    return NewTransaction(uuid7(), (Posting(debit, credit, Money(amount, "BRL")),), is_pending=is_pending)


def recording(tenant: str, *items: NewTransaction, is_atomic: bool = False) -> RecordTransactions:
    return RecordTransactions(tenant, items, ORIGIN, is_atomic=is_atomic)


async def test_an_atomic_batch_that_is_refused_leaves_nothing_to_the_commands_behind_it(
    books: Journal, database: Database, tenant: str
) -> None:
    atomic = recording(tenant, moving("A", "B", 100), moving("A", "BANK", 1), is_atomic=True)
    async with database.transaction([tenant]) as conn:
        refused, done = await change_book(conn, [atomic, recording(tenant, moving("A", "BANK", 100))])
    assert isinstance(refused, AtomicRefusal)
    assert (refused.index, type(refused.error)) == (1, InsufficientFunds)
    assert isinstance(done, Recorded)
    assert isinstance(done.outcomes[0], Transaction)
    assert [(await books.balance(account))["posted"] for account in "AB"] == ["0.00", "0.00"]


async def test_a_hold_can_be_made_posted_and_reversed_in_one_batch(
    books: Journal, database: Database, tenant: str
) -> None:
    hold, reversal = moving("A", "B", 60, is_pending=True), uuid7()
    async with database.transaction([tenant]) as conn:
        _, posted, again, reversed_, moved = await change_book(
            conn,
            [
                recording(tenant, hold),
                PostHold(tenant, hold.id, ORIGIN, ("0.50",)),
                VoidHold(tenant, hold.id, ORIGIN),
                ReverseTransaction(tenant, hold.id, reversal, "original", None, ORIGIN),
                recording(tenant, moving("A", "B", 100)),
            ],
        )
    assert isinstance(posted, Transaction)
    assert (posted.status, posted.version, posted.postings[0].money.amount) == (Status.POSTED, 2, 50)
    assert isinstance(again, Rejected)
    assert isinstance(again.error, NotPending)
    assert isinstance(reversed_, Transaction)
    assert isinstance(moved, Recorded)
    assert [(await books.balance(account))["posted"] for account in "AB"] == ["0.00", "1.00"]
    shown = (await books.get(f"/v1/ledger/transactions/{hold.id}")).json()
    assert (shown["status"], shown["reversed_by"], shown["released"][0]["amount"]) == ("POSTED", str(reversal), "0.10")


async def test_tenants_in_one_batch_do_not_meet(books: Journal, database: Database, tenant: str) -> None:
    other = f"t-{uuid4()}"
    commands: list[BookCommand] = [VoidHold(other, UUID(int=7), ORIGIN), recording(tenant, moving("A", "B", 1))]
    async with database.transaction([tenant, other]) as conn:
        refused, done = await change_book(conn, commands)
    assert isinstance(refused, Rejected)
    assert isinstance(done, Recorded)


async def test_a_reference_that_is_being_taken_makes_the_other_batch_run_again(
    books: Journal, database: Database, tenant: str
) -> None:
    first, second = (replace(moving("BANK", "CASH", 1), reference="r") for _ in range(2))

    async def record_second() -> None:
        async with database.transaction([tenant]) as conn:
            await change_book(conn, [recording(tenant, second)])

    async with database.transaction([tenant]) as conn:
        await change_book(conn, [recording(tenant, first)])
        await (await conn.execute("SELECT 1")).fetchall()
        # It finds no such reference, and waits where it takes it.
        other = asyncio.create_task(record_second())
        await asyncio.sleep(0.3)
        assert not other.done()
    with pytest.raises(psycopg.errors.SerializationFailure):
        await other
