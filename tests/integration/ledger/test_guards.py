"""What the code must never do with accounts, transactions and balances, PostgreSQL refuses as well."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role
from tests.integration.conftest import opened
from tests.integration.ledger.journal import ACCOUNTS, Journal

pytestmark = pytest.mark.anyio

CHECK = psycopg.errors.CheckViolation
RESTRICT = psycopg.errors.RestrictViolation
UNIQUE = psycopg.errors.UniqueViolation
OF_WALLET = "account = 'WALLET'"


@pytest.fixture
async def books(journal: Journal) -> Journal:
    """100.00 in a wallet of which 30.00 are held; a hold that was voided; a transaction that was reversed."""
    await journal.account("BANK", "asset")
    await journal.account("EMPTY")
    await journal.account("CLOSED")
    await journal.post(f"{ACCOUNTS}/CLOSED/close")
    await journal.wallet("WALLET", "0.00", "500.00")
    first = await journal.move("BANK", "WALLET", "100.00", reference="first")
    await journal.hold("WALLET", "BANK", "30.00", reference="held")
    await journal.end(await journal.hold("WALLET", "BANK", "1.00", reference="voided"), "void")
    second = await journal.move("BANK", "WALLET", "1.00", reference="second")
    await journal.end(second, "reverse", {"effective_at": "original"})
    await journal.end(first, "notes", {"text": "a note"})
    return journal


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        (f"UPDATE account_balances SET debits = debits + 7001, version = version + 1 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET pending_debits = 10001, version = version + 1 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET credits = credits + 40001, version = version + 1 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET pending_credits = 40001, version = version + 1 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET balance_min = 7001 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET balance_max = 9999 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET balance_min = 500, balance_max = 499 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET pending_debits = -1, version = version + 1 WHERE {OF_WALLET}", CHECK),
        (f"UPDATE account_balances SET credits = credits + 1 WHERE {OF_WALLET}", RESTRICT),
        (f"UPDATE account_balances SET debits = debits - 1, version = version + 1 WHERE {OF_WALLET}", RESTRICT),
        (f"UPDATE account_balances SET normal_side = 'debit' WHERE {OF_WALLET}", RESTRICT),
        (f"UPDATE account_balances SET currency = 'USD' WHERE {OF_WALLET}", RESTRICT),
        ("DELETE FROM account_balances", RESTRICT),
        ("TRUNCATE account_balances", RESTRICT),
        (
            f"""
            INSERT INTO account_balances SELECT tenant_id, 'CASH', currency, normal_side, 0, 0, 0, 0, NULL, NULL, 0
            FROM account_balances WHERE {OF_WALLET}
            """,
            CHECK,
        ),
        ("UPDATE accounts SET type = 'asset' WHERE code = 'WALLET'", RESTRICT),
        ("UPDATE accounts SET is_contra = true WHERE code = 'WALLET'", RESTRICT),
        ("UPDATE accounts SET code = 'OTHER' WHERE code = 'EMPTY'", RESTRICT),
        ("UPDATE accounts SET closed_at = now() WHERE code = 'WALLET'", RESTRICT),
        ("UPDATE accounts SET closed_at = now() WHERE code = 'BANK'", RESTRICT),
        ("UPDATE accounts SET closed_at = now() WHERE code = 'CASH'", RESTRICT),
        ("DELETE FROM accounts", RESTRICT),
        ("INSERT INTO accounts (tenant_id, code, name, type) SELECT tenant_id, 'a', name, type FROM accounts", CHECK),
        (
            "INSERT INTO accounts (tenant_id, code, name, type) SELECT tenant_id, 'A..B', name, type FROM accounts",
            CHECK,
        ),
        ("UPDATE ledger_transactions SET metadata = '{\"a\": \"b\"}' WHERE reference = 'held'", RESTRICT),
        ("UPDATE ledger_transactions SET reference = 'other' WHERE reference = 'held'", RESTRICT),
        ("UPDATE ledger_transactions SET effective_at = now() - interval '1 day' WHERE reference = 'held'", RESTRICT),
        ("UPDATE ledger_transactions SET status = 'VOIDED' WHERE reference = 'held'", RESTRICT),
        (
            "UPDATE ledger_transactions SET status = 'EXPIRED', version = version + 1 WHERE reference = 'held'",
            RESTRICT,
        ),
        ("UPDATE ledger_transactions SET version = version + 1 WHERE reference = 'held'", RESTRICT),
        ("UPDATE ledger_transactions SET status = 'POSTED', version = version + 1 WHERE reference = 'held'", CHECK),
        (
            """
            UPDATE ledger_transactions SET status = 'POSTED', posted_at = now(), version = version + 1
            WHERE reference = 'voided'
            """,
            RESTRICT,
        ),
        (
            """
            UPDATE ledger_transactions SET status = 'VOIDED', posted_at = NULL, version = version + 1
            WHERE reference = 'first'
            """,
            RESTRICT,
        ),
        ("DELETE FROM ledger_transactions", RESTRICT),
        ("TRUNCATE ledger_transactions CASCADE", RESTRICT),
        *(
            (statement.format(table=table), RESTRICT)
            for table in ("ledger_hold_postings", "ledger_transaction_accounts", "ledger_transaction_notes")
            for statement in ("UPDATE {table} SET tenant_id = tenant_id", "DELETE FROM {table}", "TRUNCATE {table}")
        ),
        (
            """
            INSERT INTO ledger_postings SELECT tenant_id, posted_at, entry_id, 9, debit_account, 'CLOSED', currency, 1
            FROM ledger_postings WHERE credit_account = 'WALLET' AND position = 1
            """,
            RESTRICT,
        ),
        (
            """
            INSERT INTO ledger_hold_postings SELECT tenant_id, transaction_id, 9, 'CLOSED', credit_account, currency, 1
            FROM ledger_hold_postings
            """,
            RESTRICT,
        ),
    ],
)
async def test_what_breaks_a_limit_or_changes_a_fact_cannot_be_written(
    books: Journal, owner: Database, tenant: str, statement: str, refusal: type[psycopg.Error]
) -> None:
    with pytest.raises(refusal):
        async with owner.transaction([tenant]) as conn:
            await conn.execute(statement)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"reference": "'first'"}, UNIQUE),
        ({"kind": "'reversal'"}, CHECK),
        (
            {"kind": "'reversal'", "reverses": "(SELECT reverses FROM ledger_transactions WHERE reverses IS NOT NULL)"},
            UNIQUE,
        ),
        ({"status": "'VOIDED'", "posted_at": "NULL"}, RESTRICT),
        ({"status": "'EXPIRED'", "posted_at": "NULL"}, RESTRICT),
        ({"status": "'PENDING'"}, CHECK),
        ({"posted_at": "NULL"}, CHECK),
        ({"effective_at": "now() + interval '2 seconds'"}, CHECK),
        ({"expires_at": "now()"}, CHECK),
    ],
)
async def test_a_transaction_begins_within_its_bounds(
    books: Journal, owner: Database, tenant: str, changes: dict[str, str], refusal: type[psycopg.Error]
) -> None:
    values = {
        "tenant_id": f"'{tenant}'",
        "id": f"'{uuid4()}'",
        "kind": "'transaction'",
        "status": "'POSTED'",
        "version": "1",
        "metadata": "'{}'",
        "recorded_at": "now()",
        "effective_at": "now()",
        "posted_at": "now()",
        "correlation_id": "'c'",
        **changes,
    }
    with pytest.raises(refusal):
        async with owner.transaction([tenant]) as conn:
            await conn.execute(
                f"INSERT INTO ledger_transactions ({', '.join(values)}) VALUES ({', '.join(values.values())})"
            )


async def test_of_transactions_the_relay_sees_the_holds_that_have_expired(
    books: Journal, database_url: str, tenant: str
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    await books.hold("WALLET", "BANK", "1.00", expires_at=soon)
    await asyncio.sleep(0.25)
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as relay:
        async with relay.transaction() as conn:
            cursor = await conn.execute("SELECT status FROM ledger_transactions WHERE tenant_id = %s", [tenant])
            assert await cursor.fetchall() == [("PENDING",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with relay.transaction() as conn:
                await conn.execute("SELECT reference FROM ledger_transactions")


async def test_nothing_is_posted_behind_a_closing_that_was_not_committed_when_it_was_decided(
    books: Journal, database: Database, tenant: str
) -> None:
    """The closing holds the account's row; the posting, which saw it open, waits for that and then finds it closed."""
    closing: asyncio.Event = asyncio.Event()

    async def close() -> None:
        async with database.transaction([tenant]) as conn:
            await conn.execute("SELECT FROM accounts WHERE tenant_id = %s AND code = 'EMPTY' FOR UPDATE", [tenant])
            await conn.execute(
                "UPDATE accounts SET closed_at = now() WHERE tenant_id = %s AND code = 'EMPTY'", [tenant]
            )
            await (await conn.execute("SELECT 1")).fetchall()
            closing.set()
            await asyncio.sleep(0.3)

    async def post() -> Any:
        await closing.wait()
        return await books.try_to_move("BANK", "EMPTY", "1.00")

    _, response = await asyncio.gather(close(), post())
    assert (response.status_code, response.json()["code"]) == (409, "account_closed")
