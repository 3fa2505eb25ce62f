"""Process 2, the worker: what it runs side by side, and which event leads to which use case."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from payments_ledger.chaos.faults import DisturbedPublisher, chaos_of
from payments_ledger.commit.expired_keys import PURGE_SECONDS, purge_expired_keys
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.delivery.gauges import measure_outbox
from payments_ledger.delivery.relay import Relay
from payments_ledger.delivery.reminder import Reminder
from payments_ledger.delivery.transport import transport_of
from payments_ledger.feed.gauges import measure_feed
from payments_ledger.feed.sequencer import EXPIRE_SECONDS, SEQUENCE_SECONDS, extend_log, forget_expired
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.currencies import keep_currencies, wait_for_currencies
from payments_ledger.ledger.transactions.expiry import SWEEP_SECONDS as HOLDS_SWEEP_SECONDS
from payments_ledger.ledger.transactions.expiry import sweep_expired_holds
from payments_ledger.ledger.transactions.gauges import measure_holds
from payments_ledger.messaging.subscription import Subscription
from payments_ledger.messaging.traced_publisher import TracedPublisher
from payments_ledger.orders.consumer import OrderMessages
from payments_ledger.payments.consumer import PaymentMessages
from payments_ledger.payments.events import WAITS_FOR_ITS_CAPTURE
from payments_ledger.payments.expiry import SWEEP_SECONDS, sweep_expired
from payments_ledger.payments.gauges import measure_payments, sum_up_all_counts
from payments_ledger.payments.lifecycle import PAYMENT_AUTHORIZED, PAYMENT_CAPTURE_REQUESTED
from payments_ledger.postgres.database import LOOKUP_SETTINGS, Database
from payments_ledger.postgres.roles import relay_role, runtime_role
from payments_ledger.process.periodic import repeat
from payments_ledger.process.settings import Settings
from payments_ledger.queues import (
    PAYMENTS_EXCHANGE,
    PAYMENTS_QUEUE,
    confirming_keys,
    must_reach_a_queue,
    orders_queue,
    tenants_queue,
)
from payments_ledger.schema.retention import Retention
from payments_ledger.telemetry.gauges import MEASURE_SECONDS, keep_measuring
from payments_ledger.telemetry.process_metrics import observe_process
from payments_ledger.tenants.consumer import TenantMessages
from payments_ledger.verify.watch import Watch
from payments_ledger.web.server import serving
from payments_ledger.web.worker_pages import worker_pages

# No client waits for a message's response, so a batch may wait for the messages right behind it: it then costs a
# fraction.
COLLECT_SECONDS = 0.01


class Worker:
    """Everything that follows up on a request: publishing, settling, housekeeping, the audit of the books."""

    def __init__(self, settings: Settings) -> None:
        url = settings.database_url
        self._settings = settings
        self._database = Database(
            url,
            role=runtime_role(url),
            pool_size_max=settings.database_pool_size,
            server_settings=LOOKUP_SETTINGS,
        )
        self._outbox = Database(url, role=relay_role(url), pool_size_max=2, server_settings=LOOKUP_SETTINGS)
        # One for each kind of message: a batch then takes its locks in one order (orders, payments, totals), and two
        # batches never wait for each other.
        self._settlements = GroupCommit(self._database.transaction, collect_seconds=COLLECT_SECONDS)
        self._orders = GroupCommit(self._database.transaction, collect_seconds=COLLECT_SECONDS)
        self._tenants = GroupCommit(self._database.transaction, collect_seconds=COLLECT_SECONDS)
        self._holds = GroupCommit(self._database.transaction, collect_seconds=COLLECT_SECONDS)
        self._chaos = chaos_of(settings)
        self._transport = transport_of(
            settings.rabbitmq_url, PAYMENTS_EXCHANGE, list(self._subscriptions()), self._chaos.disturbing
        )
        publisher = TracedPublisher(DisturbedPublisher(self._transport.publisher, self._chaos))
        self._relay = Relay(self._outbox, publisher, is_needed=partial(must_reach_a_queue, settings))

    async def serve(self, listener: socket.socket | None) -> None:
        """Works as `run` does, and serves its health and its metrics at the listener, if there is one."""
        async with serving(worker_pages(self._settings, self._database), listener):
            await self.run()

    async def run(self) -> None:
        """Works until cancelled, then finishes the messages in flight and publishes what is due."""
        await self._database.open()
        await self._outbox.open()
        try:
            # A message's amount must not be mistaken for one in an unknown currency.
            await wait_for_currencies(self._database)
            async with asyncio.TaskGroup() as tasks:
                for work in self._work():
                    tasks.create_task(work)
        finally:
            # Before the commands close: in memory the relay hands the events to handlers that need them.
            await self._relay.flush()
            for commands in (self._settlements, self._orders, self._tenants, self._holds):
                await commands.drain()
            await self._transport.publisher.close()
            await self._chaos.close()
            await self._database.close()
            await self._outbox.close()

    def _work(self) -> Iterator[Coroutine[Any, Any, object]]:
        """All that runs side by side."""
        settings, outbox = self._settings, self._outbox
        yield from (work() for work in self._transport.work)
        yield self._relay.run()
        patience = settings.remind_after_seconds
        yield Reminder(outbox, PAYMENT_AUTHORIZED, after_seconds=patience, unless=WAITS_FOR_ITS_CAPTURE).run()
        yield Reminder(outbox, PAYMENT_CAPTURE_REQUESTED, after_seconds=patience).run()
        yield repeat("expiry", partial(sweep_expired, outbox, self._settlements), seconds=SWEEP_SECONDS)
        yield repeat("expiry of holds", partial(sweep_expired_holds, outbox, self._holds), seconds=HOLDS_SWEEP_SECONDS)
        yield keep_currencies(self._database)
        yield self._chaos.run()
        yield repeat("purge of expired keys", partial(purge_expired_keys, outbox), seconds=PURGE_SECONDS)
        yield Retention(
            settings.database_url,
            outbox_days=settings.outbox_retention_days,
            audit_days=settings.audit_retention_days,
        ).run()
        if settings.verify_seconds:
            yield Watch(
                settings.database_url,
                INVARIANTS,
                seconds=settings.verify_seconds,
                bounds=BOUNDS | {"idempotency_ttl_seconds": settings.idempotency_ttl_seconds},
            ).run()
        yield repeat("feed", partial(extend_log, outbox), seconds=SEQUENCE_SECONDS)
        forget = partial(forget_expired, outbox, days=settings.outbox_retention_days)
        yield repeat("positions of dropped events", forget, seconds=EXPIRE_SECONDS)
        yield repeat("counts of payments", partial(sum_up_all_counts, outbox), seconds=MEASURE_SECONDS)
        yield keep_measuring(
            "database",
            partial(measure_outbox, outbox),
            partial(measure_payments, outbox),
            partial(measure_feed, outbox),
            partial(measure_holds, outbox),
        )
        yield observe_process({"commands": self._database, "outbox": outbox})

    def _subscriptions(self) -> Iterator[Subscription]:
        """Which queue is consumed, and which of its events leads where."""
        settings = self._settings
        yield Subscription(PAYMENTS_QUEUE, PaymentMessages(self._settlements).handlers())
        if settings.orders_integration_enabled:
            yield Subscription(orders_queue(settings), OrderMessages(self._orders).handlers(confirming_keys(settings)))
        if settings.tenants_sync_enabled:
            yield Subscription(tenants_queue(settings), TenantMessages(self._tenants).handlers())
