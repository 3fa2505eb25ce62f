"""How much waits in the outbox, as metrics. Imported by the worker alone: elsewhere they would say zero."""

from prometheus_client import Gauge

from payments_ledger.delivery.queries import BACKLOG_COUNTED_MAX, measure_backlog
from payments_ledger.postgres.database import Database

PENDING = Gauge("ledger_outbox_pending", f"Events to publish, at most {BACKLOG_COUNTED_MAX} are counted")
OLDEST = Gauge("ledger_outbox_oldest_seconds", "How long the oldest event to publish has been there")
BURIED = Gauge("ledger_outbox_buried", "Events set aside, since their handler refused them")


async def measure_outbox(database: Database) -> None:
    """`database` has the relay's role, which sees the events of every tenant."""
    async with database.transaction() as conn:
        backlog = await measure_backlog(conn, BACKLOG_COUNTED_MAX)
    PENDING.set(backlog.pending)
    OLDEST.set(backlog.oldest_seconds)
    BURIED.set(backlog.buried)
