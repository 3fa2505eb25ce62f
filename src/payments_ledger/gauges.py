"""What the worker asks of the database and the broker every few seconds, shown as metrics: a scrape asks nobody."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import psycopg
import structlog
from prometheus_client import Gauge

from payments_ledger.delivery.queries import measure_backlog
from payments_ledger.errors import Unavailable
from payments_ledger.messaging.messages import BrokerUnavailable
from payments_ledger.messaging.subscription import Queue
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.queries import FIRST_COUNT, count_payments, sum_up_counts
from payments_ledger.postgres.database import Database
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
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_database())
                tasks.create_task(self._keep_counts_few())
                if self._broker:
                    tasks.create_task(self._keep_broker(self._broker))
        finally:
            if self._broker:
                await self._broker.close()

    async def _keep_database(self) -> None:
        self._shown.answered.labels("database").set(time.time())
        while True:
            try:
                await self._ask_database()
            except (Unavailable, psycopg.Error) as error:
                log.warning("gauges wait", of="database", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(ASK_SECONDS)

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
        shown.answered.labels("database").set(time.time())

    async def _keep_counts_few(self) -> None:
        """Sums up what `count_payments` has to read: apart from the gauges, which must not wait for it."""
        after = FIRST_COUNT
        while True:
            pause = ASK_SECONDS
            try:
                async with self._database.transaction() as conn:
                    after = await sum_up_counts(conn, after)
                if after != FIRST_COUNT:
                    pause = PORTION_PAUSE_SECONDS
            except (Unavailable, psycopg.Error) as error:
                log.warning("gauges wait", of="counts", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    async def _keep_broker(self, broker: QueueGauge) -> None:
        self._shown.answered.labels("broker").set(time.time())
        while True:
            try:
                depths = await broker.depths()
            except BrokerUnavailable as error:
                log.warning("gauges wait", of="broker", reason=str(error))
            else:
                for depth in depths:
                    kind = "dead_letters" if depth.is_dead_letters else "work"
                    self._shown.queue_messages.labels(depth.queue, kind).set(depth.messages)
                    self._shown.queue_consumers.labels(depth.queue, kind).set(depth.consumers)
                self._shown.answered.labels("broker").set(time.time())
            await asyncio.sleep(ASK_SECONDS)


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
