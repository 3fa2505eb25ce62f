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

# A book date is the date of the effective time in the tenant's zone; NULL if it is the UTC day of the recording.
# Entries of a tenant that cannot be seen are refused, not left out: so tenants are joined from the left.
_BOOK_DATE = """
    nullif((coalesce(effective_at, %(posted_at)s) AT TIME ZONE tenants.zone)::date,
           (%(posted_at)s AT TIME ZONE 'UTC')::date)
"""


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
        _INSERT_ENTRIES,
        {
            "posted_at": posted_at,
            "tenant_ids": [entry.tenant_id for entry in entries],
            "ids": [entry.id for entry in entries],
            "kinds": [entry.kind for entry in entries],
            "source_ids": [entry.source_id for entry in entries],
            "correlation_ids": [entry.correlation_id for entry in entries],
            "subject_ids": [entry.subject_id for entry in entries],
            "effective_at": [entry.effective_at for entry in entries],
        },
    )


_INSERT_ENTRIES = f"""
    INSERT INTO ledger_entries
        (tenant_id, posted_at, id, kind, source_id, correlation_id, subject_id, effective_at, book_date)
    SELECT tenant_id, %(posted_at)s, id, kind, source_id, correlation_id, subject_id,
           nullif(effective_at, %(posted_at)s), {_BOOK_DATE}
    FROM unnest(%(tenant_ids)s::text[], %(ids)s::uuid[], %(kinds)s::text[], %(source_ids)s::uuid[],
                %(correlation_ids)s::text[], %(subject_ids)s::uuid[], %(effective_at)s::timestamptz[])
         AS entry (tenant_id, id, kind, source_id, correlation_id, subject_id, effective_at)
    LEFT JOIN tenants USING (tenant_id)
    RETURNING 1
"""  # noqa: S608


async def insert_postings(conn: Connection, entries: Sequence[Entry], posted_at: datetime) -> None:
    """Inserts the entries' postings and adds exactly these to the totals, in sorted order."""
    lines = [
        (entry, position, posting) for entry in entries for position, posting in enumerate(entry.postings, start=1)
    ]
    await conn.execute(
        _INSERT_POSTINGS,
        {
            "posted_at": posted_at,
            "tenant_ids": [entry.tenant_id for entry, _, _ in lines],
            "entry_ids": [entry.id for entry, _, _ in lines],
            "positions": [position for _, position, _ in lines],
            "debit_accounts": [posting.debit_account for _, _, posting in lines],
            "credit_accounts": [posting.credit_account for _, _, posting in lines],
            "currencies": [posting.money.currency for _, _, posting in lines],
            "amounts": [posting.money.amount for _, _, posting in lines],
            "effective_at": [entry.effective_at for entry, _, _ in lines],
        },
    )


# What is booked on the day of its recording, as all is that payments post to the books of a tenant whose zone is UTC,
# is in the one fold alone.
_INSERT_POSTINGS = f"""
    WITH posted AS (
        INSERT INTO ledger_postings
            (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount,
             effective_at, book_date)
        SELECT tenant_id, %(posted_at)s, entry_id, position, debit_account, credit_account, currency, amount,
               nullif(effective_at, %(posted_at)s), {_BOOK_DATE}
        FROM unnest(%(tenant_ids)s::text[], %(entry_ids)s::uuid[], %(positions)s::smallint[],
                    %(debit_accounts)s::text[], %(credit_accounts)s::text[], %(currencies)s::text[],
                    %(amounts)s::bigint[], %(effective_at)s::timestamptz[])
             AS posting (tenant_id, entry_id, position, debit_account, credit_account, currency, amount, effective_at)
        LEFT JOIN tenants USING (tenant_id)
        RETURNING *
    ), sides AS (
        SELECT tenant_id, debit_account AS account, currency, posted_at, book_date, amount AS debit, 0 AS credit
        FROM posted
        UNION ALL
        SELECT tenant_id, credit_account, currency, posted_at, book_date, 0, amount FROM posted
    ), shifted AS (
        INSERT INTO account_shifted_totals AS kept (tenant_id, account, currency, book_date, day, debits, credits)
        SELECT tenant_id, account, currency, book_date, (posted_at AT TIME ZONE 'UTC')::date AS day,
               sum(debit), sum(credit)
        FROM sides
        WHERE book_date IS NOT NULL
        GROUP BY tenant_id, account, currency, book_date, day
        ORDER BY tenant_id, account, currency, book_date, day
        ON CONFLICT (tenant_id, account, currency, book_date, day) DO UPDATE
            SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits
    )
    INSERT INTO account_totals AS kept (tenant_id, account, currency, day, debits, credits)
    SELECT tenant_id, account, currency, (posted_at AT TIME ZONE 'UTC')::date AS day, sum(debit), sum(credit)
    FROM sides
    GROUP BY tenant_id, account, currency, day
    ORDER BY tenant_id, account, currency, day
    ON CONFLICT (tenant_id, account, currency, day) DO UPDATE
        SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits
"""  # noqa: S608


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
