"""Process 2, the worker: the relay, the consumers, and the table that says which event leads to which use case."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from payments_ledger.chaos.faults import Chaos, DisturbedPublisher, chaos_of
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.commit.idempotency import delete_expired_keys
from payments_ledger.delivery.queries import DueEvent
from payments_ledger.delivery.relay import Relay
from payments_ledger.delivery.reminder import Reminder
from payments_ledger.gauges import Gauges
from payments_ledger.ledger.currencies import keep_currencies, wait_for_currencies
from payments_ledger.messaging.memory_bus import MemoryBus
from payments_ledger.messaging.messages import Publisher
from payments_ledger.messaging.subscription import Subscription
from payments_ledger.messaging.traced_publisher import TracedPublisher
from payments_ledger.orders.consumer import OrderMessages
from payments_ledger.payments.consumer import PaymentMessages
from payments_ledger.payments.lifecycle import PAYMENT_AUTHORIZED, PAYMENT_SETTLED
from payments_ledger.postgres.database import LOOKUP_SETTINGS, Database, relay_role, runtime_role
from payments_ledger.process.periodic import Again, repeat
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.queues import PAYMENTS_EXCHANGE, PAYMENTS_QUEUE, confirming_keys, orders_queue, tenants_queue
from payments_ledger.rabbitmq.broker import RabbitConsumer, RabbitPublisher
from payments_ledger.schema.retention import Retention
from payments_ledger.telemetry.process_metrics import observe_process
from payments_ledger.tenants.consumer import TenantMessages
from payments_ledger.verify.watch import Watch
from payments_ledger.web import health, metrics_page
from payments_ledger.web.server import server_beside

log = structlog.get_logger(__name__)

# Nobody waits for a message's answer, so a batch may wait for the messages right behind it: it then costs a fraction.
COLLECT_SECONDS = 0.01

# Idempotency keys that ran out are cleared this often, in portions that hold no lock for long.
CLEAR_SECONDS = 60.0
CLEAR_AT_ONCE = 1000


class Worker:
    """Everything that follows a request up: publishes the outbox, settles, clears old keys, audits the books."""

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
        self._chaos = chaos_of(settings)
        subscriptions = self._subscriptions()
        self._publisher, self._consumers = _transport(settings.rabbitmq_url, subscriptions, self._chaos)
        self._relay = Relay(self._outbox, TracedPublisher(self._publisher), is_needed=self._is_needed)
        self._reminder = Reminder(self._outbox, PAYMENT_AUTHORIZED, after_seconds=settings.remind_after_seconds)
        broker_url = None if settings.rabbitmq_url.startswith(MEMORY_URL) else settings.rabbitmq_url
        self._gauges = Gauges(self._outbox, broker_url, [subscription.queue for subscription in subscriptions])
        self._retention = Retention(
            url, outbox_days=settings.outbox_retention_days, audit_days=settings.audit_retention_days
        )
        self._watch = Watch(url, seconds=settings.verify_seconds, answers_seconds=settings.idempotency_ttl_seconds)

    async def serve(self, listener: socket.socket | None) -> None:
        """Works as `run` does, and shows its health and its metrics at the listener meanwhile, if there is one."""
        async with _serving(self._pages(), listener):
            await self.run()

    async def run(self) -> None:
        """Works until cancelled, then finishes the messages in hand and publishes what is due."""
        await self._database.open()
        await self._outbox.open()
        try:
            # A message's amount must not be taken for one that nobody can read.
            await wait_for_currencies(self._database)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep_currencies(self._database))
                for consumer in self._consumers:
                    tasks.create_task(consumer.run())
                tasks.create_task(self._relay.run())
                tasks.create_task(self._reminder.run())
                tasks.create_task(repeat("clearing", self._clear_expired_keys, seconds=CLEAR_SECONDS))
                tasks.create_task(self._retention.run())
                tasks.create_task(self._chaos.run())
                tasks.create_task(self._gauges.run())
                tasks.create_task(observe_process({"commands": self._database, "outbox": self._outbox}))
                if self._settings.verify_seconds:
                    tasks.create_task(self._watch.run())
        finally:
            # Before the commands close: in memory the relay hands the events to handlers that need them.
            await self._relay.flush()
            for commands in (self._settlements, self._orders, self._tenants):
                await commands.drain()
            await self._publisher.close()
            await self._chaos.close()
            await self._database.close()
            await self._outbox.close()

    def _subscriptions(self) -> list[Subscription]:
        """Which queue is consumed, and which of its events leads where."""
        settings = self._settings
        subscriptions = [Subscription(PAYMENTS_QUEUE, PaymentMessages(self._settlements).handlers())]
        if settings.orders_integration_enabled:
            orders = OrderMessages(self._orders).handlers(confirming_keys(settings))
            subscriptions.append(Subscription(orders_queue(settings), orders))
        if settings.tenants_sync_enabled:
            subscriptions.append(Subscription(tenants_queue(settings), TenantMessages(self._tenants).handlers()))
        return subscriptions

    def _pages(self) -> FastAPI:
        @asynccontextmanager
        async def hold_checks(app: FastAPI) -> AsyncIterator[None]:
            async with health.checks_of(self._settings, self._database) as app.state.checks:
                yield

        pages = FastAPI(lifespan=hold_checks, openapi_url=None, redirect_slashes=False)
        pages.include_router(health.router)
        pages.include_router(metrics_page.router)
        return pages

    def _is_needed(self, event: DueEvent) -> bool:
        """Whether somebody is known to need the event: ourselves, or the orders service for its orders."""
        if event.event_type == PAYMENT_SETTLED:
            return self._settings.orders_integration_enabled and event.order_id is not None
        return event.event_type == PAYMENT_AUTHORIZED

    async def _clear_expired_keys(self) -> Again | None:
        async with self._outbox.transaction() as conn:
            deleted = await delete_expired_keys(conn, CLEAR_AT_ONCE)
        return Again.AT_ONCE if deleted == CLEAR_AT_ONCE else None


@asynccontextmanager
async def _serving(pages: FastAPI, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serves while the block runs."""
    if listener is None:
        yield
        return
    server = server_beside(pages)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _transport(url: str, subscriptions: Sequence[Subscription], chaos: Chaos) -> tuple[Publisher, list[RabbitConsumer]]:
    """The URL's scheme decides who carries the messages; in memory the publisher calls the handlers itself.

    There a handler that fails would hold up the relay, and with it every tenant: only the publishing is disturbed.
    """
    if url.startswith(MEMORY_URL):
        return DisturbedPublisher(MemoryBus(subscriptions), chaos), []
    publisher = RabbitPublisher(url, PAYMENTS_EXCHANGE, [subscription.queue for subscription in subscriptions])
    consumers = [
        RabbitConsumer(
            url,
            subscription.queue,
            {type_: chaos.disturbing(handler) for type_, handler in subscription.handlers.items()},
        )
        for subscription in subscriptions
    ]
    return DisturbedPublisher(publisher, chaos), consumers
