"""The SQL of exports: what stands before the entries, and the entries page by page. All within one snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from payments_ledger.ledger.entry import TRANSACTION_KINDS, Posting
from payments_ledger.ledger.exports.export import ExportedEntry
from payments_ledger.ledger.period import Period
from payments_ledger.money import Money
from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Extent:
    """How many entries there are in a period, and on which days they are booked; None without any."""

    entries: int
    first_day: Any
    currencies: Sequence[str]


async def measure(conn: Connection, tenant_id: str, period: Period) -> Extent:
    """The extent of the tenant's books; `period` is about the recording."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT count(*) AS entries,
               min(coalesce(book_date, (posted_at AT TIME ZONE 'UTC')::date)) AS first_day,
               ARRAY(SELECT DISTINCT currency FROM account_totals WHERE tenant_id = %(tenant_id)s ORDER BY 1)
                   AS currencies
        FROM ledger_entries
        WHERE tenant_id = %(tenant_id)s AND posted_at >= coalesce(%(start)s::timestamptz, '-infinity')
          AND posted_at < coalesce(%(end)s::timestamptz, 'infinity')
        """,
        {"tenant_id": tenant_id, "start": period.start, "end": period.end},
    )
    row = await cursor.fetchone()
    assert row is not None
    return Extent(**row)


async def list_exported_entries(
    conn: Connection, tenant_id: str, period: Period, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[ExportedEntry]:
    """Up to `limit` entries in the order of their recording, beginning after a position (posted_at, id)."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        WITH page AS (
            SELECT *
            FROM ledger_entries
            WHERE tenant_id = %(tenant_id)s
              AND (posted_at, id) > (coalesce(%(after_at)s::timestamptz, '-infinity'), %(after_id)s::uuid)
              AND posted_at < coalesce(%(end)s::timestamptz, 'infinity')
            ORDER BY posted_at, id
            LIMIT %(limit)s
        )
        SELECT page.id, page.kind, page.posted_at, coalesce(page.effective_at, page.posted_at) AS effective_at,
               coalesce(page.book_date, (page.posted_at AT TIME ZONE 'UTC')::date) AS book_date,
               coalesce(page.subject_id, page.source_id) AS source_id, page.correlation_id,
               transaction.description, transaction.reference,
               posting.debit_account, posting.credit_account, posting.currency, posting.amount
        FROM page
        JOIN ledger_postings AS posting
          ON posting.tenant_id = %(tenant_id)s AND posting.posted_at = page.posted_at AND posting.entry_id = page.id
        LEFT JOIN ledger_transactions AS transaction
          ON transaction.tenant_id = %(tenant_id)s AND transaction.id = page.id
        ORDER BY page.posted_at, page.id, posting.position
        """,
        {
            "tenant_id": tenant_id,
            "end": period.end,
            "after_at": after[0] if after else period.start,
            "after_id": after[1] if after else UUID(int=0),
            "limit": limit,
        },
    )
    rows = await cursor.fetchall()
    return [_entry(list(of_one)) for _, of_one in groupby(rows, key=itemgetter("id"))]


def _entry(rows: Sequence[dict[str, Any]]) -> ExportedEntry:
    first = rows[0]
    return ExportedEntry(
        id=first["id"],
        kind=first["kind"],
        recorded_at=first["posted_at"],
        effective_at=first["effective_at"],
        book_date=first["book_date"],
        source_id=first["source_id"],
        is_transaction=first["kind"] in TRANSACTION_KINDS,
        correlation_id=first["correlation_id"],
        description=first["description"],
        reference=first["reference"],
        postings=tuple(
            Posting(row["debit_account"], row["credit_account"], Money(row["amount"], row["currency"])) for row in rows
        ),
    )
