"""How far back rows are kept: what retention has dropped must not look like a loss."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from payments_ledger.platform.postgres import Connection

# The bounds of a partition by time, as PostgreSQL shows them: FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('…').
_BOUNDS = re.compile(r"^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$")


@dataclass(frozen=True, slots=True)
class Horizon:
    """Rows of before may be gone; None: every row is kept. Payments, entries and postings are always kept."""

    events_since: datetime | None = None
    audit_since: datetime | None = None


async def find_horizon(conn: Connection) -> Horizon:
    """The horizon by the partitions that there are: a table that is not partitioned by time keeps every row.

    Only whole partitions are ever dropped, the old ones. One that is kept longer than its successors (it holds events
    that were never published) tells nothing of the time between: what counts is the run without a gap up to the last.
    """
    cursor = await conn.execute(
        """
        SELECT parent.relname, pg_get_expr(partition.relpartbound, partition.oid)
        FROM pg_inherits
        JOIN pg_class AS parent ON parent.oid = inhparent
        JOIN pg_class AS partition ON partition.oid = inhrelid
        WHERE parent.oid = ANY (ARRAY[to_regclass('outbox_events'), to_regclass('audit_log')]::oid[])
        """
    )
    bounds: dict[str, dict[datetime, datetime]] = {}
    for table, expression in await cursor.fetchall():
        if match := _BOUNDS.match(expression):
            start, end = map(datetime.fromisoformat, match.groups())
            bounds.setdefault(table, {})[end] = start
    return Horizon(_kept_since(bounds.get("outbox_events", {})), _kept_since(bounds.get("audit_log", {})))


def _kept_since(start_by_end: Mapping[datetime, datetime]) -> datetime | None:
    if not start_by_end:
        return None
    since = max(start_by_end)
    while since in start_by_end:
        since = start_by_end[since]
    return since
