"""Holds whose time is over and that nobody has swept, as metrics. Imported by the worker alone."""

from prometheus_client import Gauge

from payments_ledger.ledger.transactions.queries import measure_overdue
from payments_ledger.postgres.database import Database

OVERDUE = Gauge("ledger_holds_overdue", "Pending transactions whose time is over and that were not swept")
OLDEST_OVERDUE = Gauge("ledger_holds_overdue_oldest_seconds", "For how long the oldest of them has been over")


async def measure_holds(database: Database) -> None:
    """`database` has the relay's role, which sees the expired holds of every tenant."""
    async with database.transaction() as conn:
        overdue, oldest_seconds = await measure_overdue(conn)
    OVERDUE.set(overdue)
    OLDEST_OVERDUE.set(oldest_seconds)
