"""What the worker asks of the database and the broker every few seconds, shown as metrics: a scrape asks nobody."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import structlog
from prometheus_client import Gauge

from payments_ledger.delivery.queries import measure_backlog
from payments_ledger.messaging.subscription import Queue
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.queries import FIRST_COUNT, count_payments, sum_up_counts
from payments_ledger.postgres.database import Database
from payments_ledger.process.periodic import repeat
from payments_ledger.rabbitmq.broker import QueueGauge

log = structlog.get_logger(__name__)

ASK_SECONDS = 5.0
# Between two portions of counts, when there are more than one has, as after an hour without a worker.
PORTION_PAUSE_SECONDS = 0.25
# An outbox beyond this is in such trouble that it need not be counted to the end, which would only add to it.
BACKLOG_COUNTED_MAX = 20_000


class Gauges:
    """Keeps the gauges of a worker up to date. Several workers show the same: take the maximum, not the sum."""

    def __init__(self, database: Database, broker_url: str | None, queues: Sequence[Queue]) -> None:
        """`database` has the relay's role; without a broker there are no queues to look at."""
        self._database = database
        self._broker = QueueGauge(broker_url, queues) if broker_url else None
        self._shown = _shown()

    async def run(self) -> None:
        """Asks until cancelled."""
        self._shown.answered.labels("database").set_to_current_time()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(repeat("database gauges", self._ask_database, seconds=ASK_SECONDS))
                tasks.create_task(repeat("counts of payments", self._sum_up_counts, seconds=ASK_SECONDS))
                if self._broker:
                    self._shown.answered.labels("broker").set_to_current_time()
                    tasks.create_task(
                        repeat("broker gauges", partial(self._ask_broker, self._broker), seconds=ASK_SECONDS)
                    )
        finally:
            if self._broker:
                await self._broker.close()

    async def _ask_database(self) -> None:
        async with self._database.transaction() as conn:
            backlog = await measure_backlog(conn, BACKLOG_COUNTED_MAX)
        shown = self._shown
        shown.outbox_pending.set(backlog.pending)
        shown.outbox_oldest.set(backlog.oldest_seconds)
        shown.outbox_buried.set(backlog.buried)
        async with self._database.transaction() as conn:
            counts = {count.status: count for count in await count_payments(conn)}
        for status in Status:
            shown.payments.labels(status.value).set(counts[status].payments if status in counts else 0)
        authorized = counts.get(Status.AUTHORIZED)
        shown.oldest_authorized.set(authorized.oldest_seconds if authorized else 0)
        shown.answered.labels("database").set_to_current_time()

    async def _sum_up_counts(self) -> None:
        """Sums up what `count_payments` has to read, in portions: apart from the gauges, which must not wait for it."""
        after = FIRST_COUNT
        while True:
            async with self._database.transaction() as conn:
                after = await sum_up_counts(conn, after)
            if after == FIRST_COUNT:
                return
            await asyncio.sleep(PORTION_PAUSE_SECONDS)

    async def _ask_broker(self, broker: QueueGauge) -> None:
        for depth in await broker.depths():
            kind = "dead_letters" if depth.is_dead_letters else "work"
            self._shown.queue_messages.labels(depth.queue, kind).set(depth.messages)
            self._shown.queue_consumers.labels(depth.queue, kind).set(depth.consumers)
        self._shown.answered.labels("broker").set_to_current_time()


@dataclass(frozen=True)
class _Shown:
    payments: Gauge
    oldest_authorized: Gauge
    outbox_pending: Gauge
    outbox_oldest: Gauge
    outbox_buried: Gauge
    queue_messages: Gauge
    queue_consumers: Gauge
    answered: Gauge


@cache
def _shown() -> _Shown:
    """Made when first needed: in a process that asks nobody they would say zero."""
    return _Shown(
        payments=Gauge("ledger_payments", "Payments in a status now", ["status"]),
        oldest_authorized=Gauge(
            "ledger_payments_oldest_authorized_seconds", "How long the oldest AUTHORIZED payment has been so"
        ),
        outbox_pending=Gauge("ledger_outbox_pending", f"Events to publish, at most {BACKLOG_COUNTED_MAX} are counted"),
        outbox_oldest=Gauge("ledger_outbox_oldest_seconds", "How long the oldest event to publish has been there"),
        outbox_buried=Gauge("ledger_outbox_buried", "Events set aside, since their handler refused them"),
        queue_messages=Gauge("ledger_queue_messages", "Messages ready in a queue", ["queue", "kind"]),
        queue_consumers=Gauge("ledger_queue_consumers", "Consumers of a queue", ["queue", "kind"]),
        answered=Gauge("ledger_gauges_timestamp_seconds", "When the worker last had an answer for its gauges", ["of"]),
    )
