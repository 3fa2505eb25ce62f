"""How many payments are in each status, as metrics. Imported by the worker alone: elsewhere they would say zero."""

import asyncio

from prometheus_client import Gauge

from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.queries import FIRST_COUNT, count_payments, sum_up_counts
from payments_ledger.postgres.database import Database

PAYMENTS = Gauge("ledger_payments", "Payments in a status now", ["status"])
OLDEST_AUTHORIZED = Gauge(
    "ledger_payments_oldest_authorized_seconds",
    "How long the oldest AUTHORIZED payment has waited for the worker; a manual one waits from its capture on",
)

# Between two portions of counts, when there are more than one, as after an hour without a worker.
PORTION_PAUSE_SECONDS = 0.25


async def measure_payments(database: Database) -> None:
    """`database` has the relay's role, which sees the counts of every tenant."""
    async with database.transaction() as conn:
        counts = {count.status: count for count in await count_payments(conn)}
    for status in Status:
        PAYMENTS.labels(status.value).set(counts[status].payments if status in counts else 0)
    authorized = counts.get(Status.AUTHORIZED)
    OLDEST_AUTHORIZED.set(authorized.oldest_seconds if authorized else 0)


async def sum_up_all_counts(database: Database) -> None:
    """Sums up what `measure_payments` has to read, in portions: apart from it, since the gauges must not wait."""
    after = FIRST_COUNT
    while True:
        async with database.transaction() as conn:
            after = await sum_up_counts(conn, after)
        if after == FIRST_COUNT:
            return
        await asyncio.sleep(PORTION_PAUSE_SECONDS)
