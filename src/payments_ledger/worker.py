"""Process 2, the worker: the relay, the consumers, and the table that says which event leads to which use case."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from prometheus_client import Histogram
from pydantic import ValidationError

from payments_ledger.chaos.faults import Chaos, DisturbedPublisher, chaos_of
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.commit.idempotency import delete_expired_keys
from payments_ledger.delivery.queries import DueEvent
from payments_ledger.delivery.relay import Relay
from payments_ledger.delivery.reminder import Reminder
from payments_ledger.errors import IllegalMove, Rejected
from payments_ledger.gauges import Gauges
from payments_ledger.ledger.currencies import keep_currencies, wait_for_currencies
from payments_ledger.messaging.messages import DeadLetter, Handler, MemoryBus, Message, Publisher
from payments_ledger.messaging.traced_publisher import TracedPublisher
from payments_ledger.orders.consumer import OrderMessages
from payments_ledger.orders.order import ORDER_CANCELLED, PAYMENT_CHARGE_REQUESTED
from payments_ledger.payments.events import PaymentEvent
from payments_ledger.payments.lifecycle import PAYMENT_AUTHORIZED, PAYMENT_SETTLED
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.postgres.database import LOOKUP_SETTINGS, Database, relay_role, runtime_role
from payments_ledger.process.periodic import Again, repeat
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.rabbitmq.broker import Queue, RabbitConsumer, RabbitPublisher
from payments_ledger.schema.retention import Retention
from payments_ledger.telemetry import metrics
from payments_ledger.telemetry.process_metrics import observe_process
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.tenants.consumer import TenantMessages
from payments_ledger.verify.watch import Watch
from payments_ledger.web import health
from payments_ledger.web.server import server_beside

log = structlog.get_logger(__name__)

SETTLEMENT_SECONDS = Histogram(
    "ledger_settlement_seconds",
    "From a payment's confirmation to its settlement, by the database's clock",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)

PAYMENTS_EXCHANGE = "payments.x"
PAYMENTS_QUEUE = Queue(
    name="payments.events", bindings=((PAYMENTS_EXCHANGE, PAYMENT_AUTHORIZED),), dead_letters="payments.dlq"
)


def orders_queue(settings: Settings) -> Queue:
    """What we want to hear of the orders service, and the charges that are asked for on our own exchange."""
    keys = [*_keys(settings.orders_routing_key), ORDER_CANCELLED]
    bindings = [(settings.orders_exchange, key) for key in dict.fromkeys(keys)]
    return Queue(
        name=settings.orders_queue,
        bindings=(*bindings, (PAYMENTS_EXCHANGE, PAYMENT_CHARGE_REQUESTED)),
        dead_letters=_dead_letters_of(settings.orders_queue),
    )


def tenants_queue(settings: Settings) -> Queue:
    """What we want to hear of the service that keeps the tenants."""
    bindings = tuple((settings.tenants_exchange, key) for key in _keys(settings.tenants_routing_keys))
    return Queue(settings.tenants_queue, bindings, _dead_letters_of(settings.tenants_queue))


def consumed_queues(settings: Settings) -> list[Queue]:
    """The queues that a worker with these settings consumes."""
    queues = [PAYMENTS_QUEUE]
    if settings.orders_integration_enabled:
        queues.append(orders_queue(settings))
    if settings.tenants_sync_enabled:
        queues.append(tenants_queue(settings))
    return queues


def _keys(routing_keys: str) -> list[str]:
    return [key.strip() for key in routing_keys.split(",") if key.strip()]


def _dead_letters_of(queue_name: str) -> str:
    """payments.orders.events → payments.orders.dlq"""
    return f"{queue_name.removesuffix('.events')}.dlq"


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
        self._gauges = Gauges(self._outbox, broker_url, [queue for queue, _ in subscriptions])
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

    def _subscriptions(self) -> list[tuple[Queue, dict[str, Handler]]]:
        """Which queue is consumed, and which of its events leads where."""
        settings = self._settings
        subscriptions: list[tuple[Queue, dict[str, Handler]]] = [(PAYMENTS_QUEUE, {PAYMENT_AUTHORIZED: self._settle})]
        if settings.orders_integration_enabled:
            orders = OrderMessages(self._orders)
            handlers: dict[str, Handler] = dict.fromkeys(_keys(settings.orders_routing_key), orders.confirm)
            handlers |= {PAYMENT_CHARGE_REQUESTED: orders.confirm, ORDER_CANCELLED: orders.cancel}
            subscriptions.append((orders_queue(settings), handlers))
        if settings.tenants_sync_enabled:
            subscriptions.append((tenants_queue(settings), TenantMessages(self._tenants).handlers()))
        return subscriptions

    async def _settle(self, message: Message) -> None:
        """payment.authorized → settle_payments."""
        event = _read_payment_event(message)
        command = SettlePayment(event.tenant_id, event.payment_intent_id, Origin("worker", None, current_trace()))
        outcome = await self._settlements.submit(settle_payments, command)
        if isinstance(outcome, Rejected):
            # A repeated message finds its payment settled, and one that was overtaken by a cancellation finds nothing
            # to settle any more: neither is a fault.
            if not isinstance(outcome.error, IllegalMove):
                raise DeadLetter(outcome.error.detail)
            log.info("nothing to settle", payment_intent_id=str(command.payment_id), reason=outcome.error.detail)
        else:
            log.info("payment settled", payment_intent_id=str(command.payment_id), tenant_id=command.tenant_id)
            SETTLEMENT_SECONDS.observe((outcome.updated_at - event.occurred_at).total_seconds())

    def _pages(self) -> FastAPI:
        @asynccontextmanager
        async def hold_checks(app: FastAPI) -> AsyncIterator[None]:
            async with health.checks_of(self._settings, self._database) as app.state.checks:
                yield

        pages = FastAPI(lifespan=hold_checks, openapi_url=None, redirect_slashes=False)
        pages.include_router(health.router)
        pages.include_router(metrics.router)
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


def _transport(
    url: str, subscriptions: Sequence[tuple[Queue, Mapping[str, Handler]]], chaos: Chaos
) -> tuple[Publisher, list[RabbitConsumer]]:
    """The URL's scheme decides who carries the messages; in memory the publisher calls the handlers itself.

    There a handler that fails would hold up the relay, and with it every tenant: only the publishing is disturbed.
    """
    if url.startswith(MEMORY_URL):
        handlers = {type_: handler for _, handlers in subscriptions for type_, handler in handlers.items()}
        return DisturbedPublisher(MemoryBus(handlers), chaos), []
    publisher = RabbitPublisher(url, PAYMENTS_EXCHANGE, [queue for queue, _ in subscriptions])
    consumers = [
        RabbitConsumer(url, queue, {type_: chaos.disturbing(handler) for type_, handler in handlers.items()})
        for queue, handlers in subscriptions
    ]
    return DisturbedPublisher(publisher, chaos), consumers


def _read_payment_event(message: Message) -> PaymentEvent:
    try:
        return PaymentEvent.model_validate_json(message.body)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise DeadLetter(f"not a payment event: {faults}") from None
