"""The orders service as this test plays it: its own declarations and messages on a real broker, our worker behind it."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import httpx
import psycopg
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from payments_ledger.api import create_app
from payments_ledger.platform import messaging, rabbitmq
from payments_ledger.platform.messaging import BODY_BYTES_MAX
from payments_ledger.platform.postgres import driver_url
from payments_ledger.platform.settings import MEMORY_URL, Settings
from payments_ledger.worker import Worker
from tests.acceptance.conftest import Engine
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT = "00000000-0000-0000-0000-000000000002"
CONFIRMED = "order.confirmed"
CHARGE = "payment.charge_requested"
DUPLICATES = 100
ORDERS = 10_000


@pytest.fixture(scope="module")
def orders_engine(engine: Engine, postgres: PostgresServer) -> Engine:
    """An installation of its own whose orders integration is on."""
    changes = {"DATABASE_URL": postgres.create_database("orders"), "ORDERS_INTEGRATION_ENABLED": "true"}
    engine = replace(engine, environment=engine.environment | changes)
    engine.run("migrate")
    engine.run("seed")
    return engine


@dataclass
class OrdersService:
    """What the orders service declares, publishes and receives."""

    channel: AbstractChannel
    exchange: aio_pika.abc.AbstractExchange
    payments: aio_pika.abc.AbstractExchange
    queue: aio_pika.abc.AbstractQueue

    async def publish(self, body: bytes, key: str = CONFIRMED, headers: aio_pika.abc.HeadersType | None = None) -> None:
        exchange = self.payments if key == CHARGE else self.exchange
        message = aio_pika.Message(body, headers=headers, delivery_mode=2, content_type="application/json")
        await exchange.publish(message, key, mandatory=True)

    async def received(self, count: int, seconds: float = 60) -> list[AbstractIncomingMessage]:
        """The messages on its queue, once there are so many; those that come right after them, too."""
        taken: list[AbstractIncomingMessage] = []
        enough = asyncio.Event()

        async def take(incoming: AbstractIncomingMessage) -> None:
            taken.append(incoming)
            if len(taken) >= count:
                enough.set()

        tag = await self.queue.consume(take, no_ack=True)
        async with asyncio.timeout(seconds):
            await enough.wait()
        await asyncio.sleep(0.5)
        await self.queue.cancel(tag)
        return taken


@asynccontextmanager
async def orders_service(url: str) -> AsyncIterator[OrdersService]:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange("orders.x", "topic", durable=True)
        payments = await channel.declare_exchange("payments.x", "topic", durable=True)
        queue = await channel.declare_queue("orders.payments.events", durable=True)
        await queue.bind(payments, "payment.settled")
        await queue.purge()
        yield OrdersService(channel, exchange, payments, queue)


async def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while not (answer := condition()):
            await asyncio.sleep(0.05)
        return answer


def ask(engine: Engine, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the database says of the tenant, as the schema's owner."""
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [TENANT])
        return conn.execute(statement, parameters).fetchall()


def captured(order_id: str, **changes: Any) -> bytes:
    """The message as the orders service really sends it."""
    body = {
        "items": [{"qty": 3, "sku": "SKU-2", "price": 79.9}],
        "orderId": order_id,
        "currency": "BRL",
        "tenantId": TENANT,
        "customerId": "CUST-1",
        "totalAmount": 79.9 * 3,
        "correlationId": "corr-demo-1",
    }
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...}).encode()


async def publish_once_bound(service: OrdersService, body: bytes, key: str = CONFIRMED) -> None:
    """Publishes as soon as the worker has bound its queue."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await service.publish(body, key)
            except aio_pika.exceptions.PublishError:
                await asyncio.sleep(0.1)


async def test_a_hundred_duplicates_on_both_keys_over_two_workers_and_a_kill_end_in_one_payment(
    orders_engine: Engine,
) -> None:
    order_id = str(uuid4())
    keys = [CONFIRMED, CHARGE] * DUPLICATES
    random.shuffle(keys)
    url = orders_engine.environment["RABBITMQ_URL"]
    async with orders_service(url) as service:
        with orders_engine.process("worker") as survivor, orders_engine.process("worker") as victim:
            for key in (CONFIRMED, CHARGE):
                await publish_once_bound(service, captured(order_id), key)
            for number, key in enumerate(keys):
                if number == len(keys) // 2:
                    victim.kill()
                await service.publish(captured(order_id), key)
                await asyncio.sleep(0.002)
            await asyncio.to_thread(victim.wait)
            with orders_engine.worker():
                # The last one tells that all before it were handled, since it has a payment of its own.
                await service.publish(captured(last := str(uuid4())))
                received = await service.received(2)
                await eventually(lambda: ask(orders_engine, "SELECT 1 FROM orders WHERE order_id = %s", last))
                await eventually(lambda: not ask(orders_engine, "SELECT FROM outbox_events WHERE published_at IS NULL"))
            assert survivor.poll() is None
    [(payment_id, status)] = ask(orders_engine, "SELECT id, status FROM payment_intents WHERE order_id = %s", order_id)
    assert status == "SETTLED"
    assert ask(orders_engine, "SELECT kind FROM ledger_entries WHERE source_id = %s", payment_id) == [("settlement",)]
    settled = [message for message in received if json.loads(message.body)["order_id"] == order_id]
    # A worker that is killed between the broker's confirmation and its own commit publishes once more, under one id.
    assert len({message.message_id for message in settled}) == 1
    content = json.loads(settled[0].body)
    assert content.pop("occurred_at")
    assert content == {
        "payment_intent_id": str(payment_id),
        "tenant_id": TENANT,
        "status": "SETTLED",
        "amount": "239.70",
        "currency": "BRL",
        "customer_ref": f"order:{order_id}",
        "order_id": order_id,
        "correlation_id": "corr-demo-1",
    }
    assert (settled[0].type, settled[0].routing_key) == ("payment.settled", "payment.settled")


async def test_ten_thousand_orders_go_in_and_ten_thousand_settlements_come_out(
    orders_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [str(uuid4()) for _ in range(ORDERS)]
    async with orders_service(orders_engine.environment["RABBITMQ_URL"]) as service:
        with orders_engine.worker():
            await publish_once_bound(service, captured(ids[0]))
            began = time.monotonic()
            receiving = asyncio.create_task(service.received(ORDERS, seconds=120))
            for start in range(1, ORDERS, 500):
                await asyncio.gather(*(service.publish(captured(id_)) for id_ in ids[start : start + 500]))
            received = await receiving
            seconds = time.monotonic() - began - 0.5
    settled = Counter(json.loads(message.body)["order_id"] for message in received)
    assert settled == Counter(ids)
    with capsys.disabled():
        print(f"\n{ORDERS} orders settled in {seconds:.1f} s: {ORDERS / seconds:.0f} a second over one worker")  # noqa: T201
