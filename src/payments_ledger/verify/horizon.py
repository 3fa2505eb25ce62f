"""How far back rows are kept: what retention has dropped must not look like a loss."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from payments_ledger.postgres.database import Connection

# A row's month is that of an id which an API process made a moment before the database dated the row, by a clock of
# its own.
CLOCKS_APART = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Horizon:
    """Older rows may have been dropped; None: every row is kept. Payments, entries and postings are always kept.

    Of events it is the payment that must not be older, of audit rows they themselves.
    """

    events_since: datetime | None = None
    audit_since: datetime | None = None


async def find_horizon(conn: Connection) -> Horizon:
    """The horizon by the months that there are. The first ever made begins at the beginning of time.

    Only whole months are ever dropped, the old ones. One that is kept longer than its successors (it holds events
    that were never published) says nothing about the months between: the run without a gap up to the last one counts.
    """
    return Horizon(await _kept_since(conn, "outbox_events"), await _kept_since(conn, "audit_log"))


async def _kept_since(conn: Connection, divided: str) -> datetime | None:
    cursor = await conn.execute("SELECT nullif(starts, '-infinity'), ends FROM months_of(%s)", [divided])
    start_by_end = {ends: starts for starts, ends in await cursor.fetchall()}
    since = max(start_by_end, default=None)
    while since in start_by_end:
        since = start_by_end[since]
    return since + CLOCKS_APART if since else None
