"""How far the feed is behind, as metrics. Imported by the worker alone: elsewhere they would say zero."""

from prometheus_client import Gauge

from payments_ledger.feed.queries import measure_lag
from payments_ledger.postgres.database import Database

WAITING = Gauge("ledger_feed_waiting", "Events without a position in the feed yet, at most 20,000 are counted")
OLDEST = Gauge("ledger_feed_oldest_seconds", "How long the oldest event without a position has been there")


async def measure_feed(outbox: Database) -> None:
    """`outbox` has the relay's role, which sees the events of every tenant."""
    async with outbox.transaction() as conn:
        waiting, seconds = await measure_lag(conn)
    WAITING.set(waiting)
    OLDEST.set(seconds)
