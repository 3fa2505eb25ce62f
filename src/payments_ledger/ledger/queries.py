"""The SQL of the ledger: inserting entries with their postings and totals, reading entries and balances."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from payments_ledger.ledger.accounts import Account, AccountType
from payments_ledger.ledger.entry import Balance, Entry, PostedEntry, Posting
from payments_ledger.ledger.period import Period, split_by_day
from payments_ledger.money import Money
from payments_ledger.postgres.database import Connection


async def insert_accounts(conn: Connection, tenant_id: str, accounts: Sequence[Account]) -> None:
    """Adds the accounts that the tenant does not have yet."""
    for account in accounts:
        await conn.execute(
            "INSERT INTO accounts (tenant_id, code, name, type) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [tenant_id, account.code, account.name, account.type],
        )


async def insert_entries(conn: Connection, entries: Sequence[Entry], posted_at: datetime) -> None:
    """Without their postings. Raises psycopg's UniqueViolation if a source already has an entry of the kind."""
    await conn.execute(
        """
        INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id, subject_id)
        SELECT tenant_id, %s, id, kind, source_id, correlation_id, subject_id
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::uuid[])
             AS entry (tenant_id, id, kind, source_id, correlation_id, subject_id)
        """,
        [
            posted_at,
            [entry.tenant_id for entry in entries],
            [entry.id for entry in entries],
            [entry.kind for entry in entries],
            [entry.source_id for entry in entries],
            [entry.correlation_id for entry in entries],
            [entry.subject_id for entry in entries],
        ],
    )


async def insert_postings(conn: Connection, entries: Sequence[Entry], posted_at: datetime) -> None:
    """Inserts the entries' postings and adds exactly these to the totals, in sorted order."""
    lines = [
        (entry.tenant_id, entry.id, position, posting)
        for entry in entries
        for position, posting in enumerate(entry.postings, start=1)
    ]
    await conn.execute(
        """
        WITH posted AS (
            INSERT INTO ledger_postings
                (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
            SELECT tenant_id, %s, entry_id, position, debit_account, credit_account, currency, amount
            FROM unnest(%s::text[], %s::uuid[], %s::smallint[], %s::text[], %s::text[], %s::text[], %s::bigint[])
                 AS posting (tenant_id, entry_id, position, debit_account, credit_account, currency, amount)
            RETURNING *
        ), sides AS (
            SELECT tenant_id, debit_account AS account, currency, posted_at, amount AS debit, 0 AS credit FROM posted
            UNION ALL
            SELECT tenant_id, credit_account, currency, posted_at, 0, amount FROM posted
        )
        INSERT INTO account_totals AS kept (tenant_id, account, currency, day, debits, credits)
        SELECT tenant_id, account, currency, (posted_at AT TIME ZONE 'UTC')::date AS day, sum(debit), sum(credit)
        FROM sides
        GROUP BY tenant_id, account, currency, day
        ORDER BY tenant_id, account, currency, day
        ON CONFLICT (tenant_id, account, currency, day) DO UPDATE
            SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits
        """,
        [
            posted_at,
            [tenant_id for tenant_id, _, _, _ in lines],
            [entry_id for _, entry_id, _, _ in lines],
            [position for _, _, position, _ in lines],
            [posting.debit_account for _, _, _, posting in lines],
            [posting.credit_account for _, _, _, posting in lines],
            [posting.money.currency for _, _, _, posting in lines],
            [posting.money.amount for _, _, _, posting in lines],
        ],
    )


async def list_entries(
    conn: Connection, tenant_id: str, period: Period, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[PostedEntry]:
    """Up to `limit` entries of the period, newest first, beginning after a position (posted_at, id)."""
    before, before_id = period.before(after)
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        WITH page AS (
            SELECT *
            FROM ledger_entries
            WHERE tenant_id = %(tenant_id)s
              AND posted_at >= coalesce(%(start)s::timestamptz, '-infinity')
              AND (posted_at, id) < (coalesce(%(before)s::timestamptz, 'infinity'), %(before_id)s::uuid)
            ORDER BY posted_at DESC, id DESC
            LIMIT %(limit)s
        )
        SELECT page.id, page.kind, page.source_id, page.subject_id, page.correlation_id, page.posted_at,
               posting.debit_account, posting.credit_account, posting.currency, posting.amount
        FROM page
        JOIN ledger_postings AS posting
          ON posting.tenant_id = %(tenant_id)s AND posting.posted_at = page.posted_at AND posting.entry_id = page.id
        ORDER BY page.posted_at DESC, page.id DESC, posting.position
        """,
        {
            "tenant_id": tenant_id,
            "start": period.start,
            "before": before,
            "before_id": before_id,
            "limit": limit,
        },
    )
    rows = await cursor.fetchall()
    return [_posted_entry(tenant_id, list(lines)) for _, lines in groupby(rows, key=itemgetter("id"))]


async def list_balances(conn: Connection, tenant_id: str, period: Period) -> list[Balance]:
    """The sums of each account and currency that moved in the period: whole days from totals, the rest by posting."""
    split = split_by_day(period)
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        WITH remainders AS (
            SELECT debit_account, credit_account, currency, sum(amount) AS amount
            FROM unnest(%(remainder_starts)s::timestamptz[], %(remainder_ends)s::timestamptz[])
                 AS remainder (starts, ends)
            JOIN ledger_postings AS posting
              ON posting.tenant_id = %(tenant_id)s
             AND posting.posted_at >= remainder.starts AND posting.posted_at < remainder.ends
            GROUP BY debit_account, credit_account, currency
        ), sides AS (
            SELECT account, currency, debits, credits
            FROM account_totals
            WHERE tenant_id = %(tenant_id)s
              AND day >= coalesce(%(first_day)s::date, '-infinity') AND day < coalesce(%(end_day)s::date, 'infinity')
            UNION ALL
            SELECT debit_account, currency, amount, 0 FROM remainders
            UNION ALL
            SELECT credit_account, currency, 0, amount FROM remainders
        ), sums AS (
            SELECT account, currency, sum(debits) AS debits, sum(credits) AS credits
            FROM sides
            GROUP BY account, currency
        )
        SELECT account.code, account.type, account.is_contra, currency, debits::text, credits::text
        FROM sums
        JOIN accounts AS account ON account.tenant_id = %(tenant_id)s AND account.code = sums.account
        ORDER BY account.code, currency
        """,
        {
            "tenant_id": tenant_id,
            "first_day": split.first_day,
            "end_day": split.end_day,
            "remainder_starts": [starts for starts, _ in split.remainders],
            "remainder_ends": [ends for _, ends in split.remainders],
        },
    )
    return [
        Balance(
            row["code"],
            AccountType(row["type"]),
            row["currency"],
            int(row["debits"]),
            int(row["credits"]),
            row["is_contra"],
        )
        for row in await cursor.fetchall()
    ]


def _posted_entry(tenant_id: str, lines: Sequence[dict[str, Any]]) -> PostedEntry:
    first = lines[0]
    postings = tuple(
        Posting(line["debit_account"], line["credit_account"], Money(line["amount"], line["currency"]))
        for line in lines
    )
    entry = Entry(
        tenant_id,
        first["id"],
        first["kind"],
        first["source_id"],
        first["correlation_id"],
        postings,
        first["subject_id"],
    )
    return PostedEntry(entry, first["posted_at"])
