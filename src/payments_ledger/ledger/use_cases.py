"""Posting entries: the one way into the books."""

from collections.abc import Sequence

from payments_ledger.ledger import queries
from payments_ledger.ledger.entry import Entry
from payments_ledger.postgres.database import Connection, transaction_time


async def post_entries(conn: Connection, entries: Sequence[Entry]) -> None:
    """Writes the entries, their postings and the account totals, dated now.

    A second entry of the same kind for one source violates a unique constraint: the caller has decided wrongly.
    """
    posted_at = await transaction_time(conn)
    await queries.insert_entries(conn, entries, posted_at)
    await queries.insert_postings(conn, entries, posted_at)
