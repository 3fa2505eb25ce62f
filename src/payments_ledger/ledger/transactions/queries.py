"""The SQL of transactions. Their rows are locked first of all: before accounts, balances and totals.

Long because it is the SQL of all that happens to a transaction, and of reading it back.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import class_row, dict_row

from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.transactions.transaction import Kind, Status, Transaction
from payments_ledger.money import Money
from payments_ledger.postgres.database import Connection

type Key = tuple[str, UUID]
"""Tenant and id of a transaction."""

# What one batch takes upon itself besides its own work; the worker ends the others.
EXPIRED_AT_ONCE = 200
ALWAYS = Period()


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions are listed; None, an unbounded period and an empty mapping are no condition.

    `prefix` is the code of an account: it and those below it. Every pair of `metadata` must be the transaction's.
    """

    recorded: Period = ALWAYS
    effective: Period = ALWAYS
    account: str | None = None
    prefix: str | None = None
    reference: str | None = None
    status: Status | None = None
    kind: Kind | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DueHold:
    """A hold whose time is over, as the relay's role sees it."""

    tenant_id: str
    id: UUID
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Note:
    """What was said of a transaction later on; `author` is a user's id."""

    tenant_id: str
    transaction_id: UUID
    id: UUID
    text: str
    author: str
    created_at: datetime


async def lock_transactions(conn: Connection, keys: Collection[Key]) -> dict[Key, Transaction]:
    """Those of the transactions that exist, locked until the database's transaction ends."""
    by_tenant = [
        (tenant_id, [transaction_id for _, transaction_id in group])
        for tenant_id, group in groupby(sorted(keys), key=itemgetter(0))
    ]
    locked = [
        await conn.cursor(binary=True).execute(
            """
            SELECT id FROM ledger_transactions
            WHERE tenant_id = %s AND id = ANY (%s::uuid[])
            ORDER BY id
            FOR NO KEY UPDATE
            """,
            [tenant_id, ids],
        )
        for tenant_id, ids in by_tenant
    ]
    for cursor in locked:
        await cursor.fetchall()
    # Read when they are locked: their postings and reversals are then as the rows are.
    found = [
        transaction for tenant_id, ids in by_tenant for transaction in await find_transactions(conn, tenant_id, ids)
    ]
    return {transaction.key: transaction for transaction in found}


async def find_expired_holds(conn: Connection, accounts: Mapping[str, Collection[str]]) -> list[Key]:
    """Holds of the accounts, by tenant, whose time is over; locked, but for those that somebody else has locked."""
    cursors = [
        await conn.cursor(binary=True).execute(
            """
            SELECT tenant_id, id
            FROM ledger_transactions AS hold
            WHERE tenant_id = %(tenant_id)s AND status = 'PENDING' AND expires_at <= now()
              AND EXISTS (
                  SELECT FROM ledger_hold_postings AS held
                  WHERE held.tenant_id = hold.tenant_id AND held.transaction_id = hold.id
                    AND (held.debit_account = ANY (%(accounts)s::text[])
                         OR held.credit_account = ANY (%(accounts)s::text[])))
            ORDER BY id
            LIMIT %(limit)s
            FOR NO KEY UPDATE SKIP LOCKED
            """,
            {"tenant_id": tenant_id, "accounts": list(codes), "limit": EXPIRED_AT_ONCE},
        )
        for tenant_id, codes in sorted(accounts.items())
    ]
    return [key for cursor in cursors for key in await cursor.fetchall()]


async def list_due_holds(conn: Connection, limit: int) -> list[DueHold]:
    """The holds of any tenant whose time has been over for longest (as the relay's role)."""
    cursor = conn.cursor(row_factory=class_row(DueHold))
    await cursor.execute(
        """
        SELECT tenant_id, id, correlation_id
        FROM ledger_transactions
        WHERE status = 'PENDING' AND expires_at <= now()
        ORDER BY expires_at
        LIMIT %s
        """,
        [limit],
    )
    return await cursor.fetchall()


async def request_zones(conn: Connection, tenant_ids: Collection[str]) -> AsyncCursor[tuple[str, str]]:
    """Will have (tenant, zone) of each tenant; whoever fetches them later waits for them together with the rest."""
    return await conn.cursor(binary=True).execute(
        "SELECT tenant_id, zone FROM tenants WHERE tenant_id = ANY (%s)", [list(tenant_ids)]
    )


async def measure_overdue(conn: Connection) -> tuple[int, float]:
    """How many holds should have been swept, and for how many seconds the oldest (as the relay's role)."""
    cursor = await conn.execute(
        """
        SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(expires_at)), 0)::float8
        FROM ledger_transactions
        WHERE status = 'PENDING' AND expires_at <= now()
        """
    )
    row = await cursor.fetchone()
    assert row is not None
    overdue, oldest_seconds = row
    return overdue, oldest_seconds


async def find_references(conn: Connection, references: Collection[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """The transactions that have the given (tenant, reference) pairs."""
    cursor = await conn.cursor(binary=True).execute(
        """
        SELECT tenant_id, reference, id
        FROM ledger_transactions
        JOIN unnest(%s::text[], %s::text[]) AS wanted (tenant_id, reference) USING (tenant_id, reference)
        WHERE reference IS NOT NULL
        """,
        [[tenant_id for tenant_id, _ in references], [reference for _, reference in references]],
    )
    return {(tenant_id, reference): id_ for tenant_id, reference, id_ in await cursor.fetchall()}


async def insert_transactions(conn: Connection, transactions: Sequence[Transaction]) -> None:
    """Without their postings. Collides with a transaction that took one of the references meanwhile."""
    await conn.execute(
        """
        INSERT INTO ledger_transactions
            (tenant_id, id, kind, status, version, reference, description, metadata, recorded_at, effective_at,
             expires_at, posted_at, reverses, reason, balances_after, correlation_id)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[], %s::integer[], %s::text[], %s::text[], %s::json[],
                    %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::uuid[], %s::text[],
                    %s::jsonb[], %s::text[])
        ON CONFLICT (tenant_id, reference) WHERE reference IS NOT NULL DO UPDATE SET version = EXCLUDED.version
            WHERE run_again('the reference was taken meanwhile')
        """,
        [
            [transaction.tenant_id for transaction in transactions],
            [transaction.id for transaction in transactions],
            [transaction.kind.value for transaction in transactions],
            [transaction.status.value for transaction in transactions],
            [transaction.version for transaction in transactions],
            [transaction.reference for transaction in transactions],
            [transaction.description for transaction in transactions],
            [json.dumps(dict(transaction.metadata)) for transaction in transactions],
            [transaction.recorded_at for transaction in transactions],
            [transaction.effective_at for transaction in transactions],
            [transaction.expires_at for transaction in transactions],
            [transaction.posted_at for transaction in transactions],
            [transaction.reverses for transaction in transactions],
            [transaction.reason for transaction in transactions],
            [_balances_as_json(transaction) for transaction in transactions],
            [transaction.correlation_id for transaction in transactions],
        ],
    )


async def insert_hold_postings(conn: Connection, transactions: Sequence[Transaction]) -> None:
    """What the holds hold."""
    lines = [
        (transaction.tenant_id, transaction.id, position, posting)
        for transaction in transactions
        for position, posting in enumerate(transaction.held, start=1)
    ]
    await conn.execute(
        """
        INSERT INTO ledger_hold_postings
            (tenant_id, transaction_id, position, debit_account, credit_account, currency, amount)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[])
        RETURNING 1
        """,
        [
            [tenant_id for tenant_id, _, _, _ in lines],
            [transaction_id for _, transaction_id, _, _ in lines],
            [position for _, _, position, _ in lines],
            [posting.debit_account for _, _, _, posting in lines],
            [posting.credit_account for _, _, _, posting in lines],
            [posting.money.currency for _, _, _, posting in lines],
            [posting.money.amount for _, _, _, posting in lines],
        ],
    )


async def insert_accounts_of(conn: Connection, transactions: Sequence[Transaction]) -> None:
    """Has each transaction listed under each of its accounts."""
    rows = [
        (transaction, account)
        for transaction in transactions
        for account in dict.fromkeys(
            account for posting in transaction.postings for account in (posting.debit_account, posting.credit_account)
        )
    ]
    await conn.execute(
        """
        INSERT INTO ledger_transaction_accounts (tenant_id, account, recorded_at, transaction_id)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::uuid[])
        RETURNING 1
        """,
        [
            [transaction.tenant_id for transaction, _ in rows],
            [account for _, account in rows],
            [transaction.recorded_at for transaction, _ in rows],
            [transaction.id for transaction, _ in rows],
        ],
    )


async def save_ended(conn: Connection, transactions: Sequence[Transaction]) -> None:
    """Writes what became of holds that this transaction has locked."""
    await conn.execute(
        """
        UPDATE ledger_transactions
        SET status = ended.status, version = ended.version, posted_at = ended.posted_at,
            balances_after = ended.balances_after
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::integer[], %s::timestamptz[], %s::jsonb[])
             AS ended (tenant_id, id, status, version, posted_at, balances_after)
        WHERE ledger_transactions.tenant_id = ended.tenant_id AND ledger_transactions.id = ended.id
        """,
        [
            [transaction.tenant_id for transaction in transactions],
            [transaction.id for transaction in transactions],
            [transaction.status.value for transaction in transactions],
            [transaction.version for transaction in transactions],
            [transaction.posted_at for transaction in transactions],
            [_balances_as_json(transaction) for transaction in transactions],
        ],
    )


async def find_transactions(conn: Connection, tenant_id: str, ids: Collection[UUID]) -> list[Transaction]:
    """Those that the tenant has, in no particular order."""
    return await _with_postings(conn, tenant_id, await _find_rows(conn, tenant_id, ids))


async def list_transactions(
    conn: Connection, tenant_id: str, wanted: TransactionFilter, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Transaction]:
    """Up to `limit` transactions, newest first, beginning after a position (recorded_at, id)."""
    before, before_id = wanted.recorded.before(after)
    cursor = conn.cursor(binary=True)
    # Of an account, its own index is read; any other filter is a condition on transactions, newest first.
    source = _OF_ACCOUNT if wanted.account else _OF_ALL
    await cursor.execute(
        source,
        {
            "tenant_id": tenant_id,
            "account": wanted.account,
            "start": wanted.recorded.start,
            "before": before,
            "before_id": before_id,
            "prefix": wanted.prefix,
            "below": f"{wanted.prefix}.",
            "reference": wanted.reference,
            "status": wanted.status.value if wanted.status else None,
            "kind": wanted.kind.value if wanted.kind else None,
            "effective_start": wanted.effective.start,
            "effective_end": wanted.effective.end,
            "metadata": json.dumps(dict(wanted.metadata)),
            "limit": limit,
        },
    )
    ids = [id_ for (id_,) in await cursor.fetchall()]
    found = {transaction.id: transaction for transaction in await find_transactions(conn, tenant_id, ids)}
    return [found[id_] for id_ in ids]


async def insert_notes(conn: Connection, notes: Sequence[Note]) -> None:
    """Adds the notes to transactions that exist."""
    await conn.execute(
        """
        INSERT INTO ledger_transaction_notes (tenant_id, transaction_id, id, text, author, created_at)
        SELECT * FROM unnest(%s::text[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::timestamptz[])
        RETURNING 1
        """,
        [
            [note.tenant_id for note in notes],
            [note.transaction_id for note in notes],
            [note.id for note in notes],
            [note.text for note in notes],
            [note.author for note in notes],
            [note.created_at for note in notes],
        ],
    )


async def list_notes(conn: Connection, tenant_id: str, transaction_id: UUID) -> list[Note]:
    """The notes of a transaction, in the order in which they were written."""
    cursor = conn.cursor(row_factory=class_row(Note), binary=True)
    await cursor.execute(
        """
        SELECT tenant_id, transaction_id, id, text, author, created_at
        FROM ledger_transaction_notes
        WHERE tenant_id = %s AND transaction_id = %s
        ORDER BY created_at, id
        """,
        [tenant_id, transaction_id],
    )
    return await cursor.fetchall()


async def find_existing(conn: Connection, keys: Collection[Key]) -> set[Key]:
    """Those of the transactions that exist."""
    cursor = await conn.cursor(binary=True).execute(
        """
        SELECT tenant_id, id
        FROM ledger_transactions
        JOIN unnest(%s::text[], %s::uuid[]) AS wanted (tenant_id, id) USING (tenant_id, id)
        """,
        [[tenant_id for tenant_id, _ in keys], [id_ for _, id_ in keys]],
    )
    return set(await cursor.fetchall())


# ----------------------------------------------------------------------------------------------------------------------
# Rows

_CONDITIONS = """
      AND (%(prefix)s::text IS NULL OR EXISTS (
          SELECT FROM ledger_transaction_accounts AS its
          WHERE its.tenant_id = %(tenant_id)s AND its.transaction_id = found.id AND its.recorded_at = found.recorded_at
            AND (its.account = %(prefix)s OR starts_with(its.account, %(below)s))))
      AND (%(reference)s::text IS NULL OR found.reference = %(reference)s)
      AND (%(status)s::text IS NULL OR found.status = %(status)s)
      AND (%(kind)s::text IS NULL OR found.kind = %(kind)s)
      AND found.effective_at >= coalesce(%(effective_start)s::timestamptz, '-infinity')
      AND found.effective_at < coalesce(%(effective_end)s::timestamptz, 'infinity')
      AND found.metadata::jsonb @> %(metadata)s::jsonb
"""
_OF_ALL = f"""
    SELECT found.id
    FROM ledger_transactions AS found
    WHERE found.tenant_id = %(tenant_id)s
      AND found.recorded_at >= coalesce(%(start)s::timestamptz, '-infinity')
      AND (found.recorded_at, found.id)
          < (coalesce(%(before)s::timestamptz, 'infinity'), %(before_id)s::uuid)
      {_CONDITIONS}
    ORDER BY found.recorded_at DESC, found.id DESC
    LIMIT %(limit)s
"""  # noqa: S608
_OF_ACCOUNT = f"""
    SELECT found.id
    FROM ledger_transaction_accounts AS of_account
    JOIN ledger_transactions AS found
      ON found.tenant_id = %(tenant_id)s AND found.id = of_account.transaction_id
    WHERE of_account.tenant_id = %(tenant_id)s AND of_account.account = %(account)s
      AND of_account.recorded_at >= coalesce(%(start)s::timestamptz, '-infinity')
      AND (of_account.recorded_at, of_account.transaction_id)
          < (coalesce(%(before)s::timestamptz, 'infinity'), %(before_id)s::uuid)
      {_CONDITIONS}
    ORDER BY of_account.recorded_at DESC, of_account.transaction_id DESC
    LIMIT %(limit)s
"""  # noqa: S608


async def _find_rows(conn: Connection, tenant_id: str, ids: Collection[UUID]) -> list[dict[str, Any]]:
    if not ids:
        return []
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT found.*, reversal.id AS reversed_by, tenants.zone
        FROM ledger_transactions AS found
        JOIN tenants ON tenants.tenant_id = found.tenant_id
        LEFT JOIN ledger_transactions AS reversal
          ON reversal.tenant_id = %(tenant_id)s AND reversal.reverses = found.id
        WHERE found.tenant_id = %(tenant_id)s AND found.id = ANY (%(ids)s::uuid[])
        """,
        {"tenant_id": tenant_id, "ids": list(ids)},
    )
    return await cursor.fetchall()


async def _with_postings(conn: Connection, tenant_id: str, rows: Sequence[dict[str, Any]]) -> list[Transaction]:
    entries = [row for row in rows if row["posted_at"]]
    posted = await conn.cursor(row_factory=dict_row, binary=True).execute(
        """
        SELECT entry_id AS id, debit_account, credit_account, currency, amount
        FROM ledger_postings
        JOIN unnest(%s::timestamptz[], %s::uuid[]) AS wanted (posted_at, entry_id) USING (posted_at, entry_id)
        WHERE tenant_id = %s
        ORDER BY entry_id, position
        """,
        [[row["posted_at"] for row in entries], [row["id"] for row in entries], tenant_id],
    )
    held = await conn.cursor(row_factory=dict_row, binary=True).execute(
        """
        SELECT transaction_id AS id, debit_account, credit_account, currency, amount
        FROM ledger_hold_postings
        WHERE tenant_id = %s AND transaction_id = ANY (%s::uuid[])
        ORDER BY transaction_id, position
        """,
        [tenant_id, [row["id"] for row in rows]],
    )
    postings_of = _by_id(await posted.fetchall())
    held_of = _by_id(await held.fetchall())
    return [
        _transaction(row, postings_of.get(row["id"]) or held_of.get(row["id"], ()), held_of.get(row["id"], ()))
        for row in rows
    ]


def _by_id(rows: Iterable[dict[str, Any]]) -> dict[UUID, tuple[Posting, ...]]:
    return {
        id_: tuple(
            Posting(row["debit_account"], row["credit_account"], Money(row["amount"], row["currency"]))
            for row in of_one
        )
        for id_, of_one in groupby(rows, key=itemgetter("id"))
    }


def _transaction(row: dict[str, Any], postings: tuple[Posting, ...], held: tuple[Posting, ...]) -> Transaction:
    return Transaction(
        tenant_id=row["tenant_id"],
        id=row["id"],
        kind=Kind(row["kind"]),
        status=Status(row["status"]),
        postings=postings,
        recorded_at=row["recorded_at"],
        effective_at=row["effective_at"],
        correlation_id=row["correlation_id"],
        version=row["version"],
        held=held,
        reference=row["reference"],
        description=row["description"],
        metadata=row["metadata"],
        expires_at=row["expires_at"],
        posted_at=row["posted_at"],
        reverses=row["reverses"],
        reversed_by=row["reversed_by"],
        reason=row["reason"],
        balances_after=_balances_from_json(row["balances_after"] or ()),
        zone=row["zone"],
    )


def _balances_as_json(transaction: Transaction) -> str | None:
    """Numbers as strings: JSON's would lose digits in other hands."""
    if not transaction.balances_after:
        return None
    return json.dumps(
        [
            [
                balance.account,
                balance.currency,
                balance.normal_side.value,
                *map(
                    str,
                    (
                        balance.debits,
                        balance.credits,
                        balance.pending_debits,
                        balance.pending_credits,
                        balance.version,
                    ),
                ),
            ]
            for balance in transaction.balances_after
        ]
    )


def _balances_from_json(balances: Iterable[Sequence[str]]) -> tuple[RunningBalance, ...]:
    return tuple(
        RunningBalance(
            account=account,
            currency=currency,
            normal_side=Side(side),
            debits=int(sums[0]),
            credits=int(sums[1]),
            pending_debits=int(sums[2]),
            pending_credits=int(sums[3]),
            version=int(version),
        )
        for account, currency, side, *sums, version in balances
    )
