"""Messages reach everybody who subscribed to them, whoever carries them."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest

from payments_ledger.delivery.transport import transport_of
from payments_ledger.errors import ChaosInjected
from payments_ledger.messaging.messages import Handler, Message
from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.messaging.subscription import Queue, Subscription
from payments_ledger.process.settings import MEMORY_URL
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio

TYPE = "it.happened"
NUMBERS = ("1", "2", "3")


class Reader:
    """Notes the ids of what it handled."""

    def __init__(self, exchange: str) -> None:
        name = uuid4().hex
        self.handled: list[str] = []
        self.subscription = Subscription(Queue(f"q.{name}", ((exchange, TYPE),), f"dead.{name}"), {TYPE: self.handle})

    async def handle(self, message: Message) -> None:
        self.handled.append(message.id)


def as_it_is(handler: Handler) -> Handler:
    return handler


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "rabbitmq"])
async def test_two_queues_that_are_bound_to_one_type_both_get_each_message_once(
    rabbitmq_server: RabbitmqServer, in_memory: bool
) -> None:
    exchange = f"x.{uuid4().hex}"
    readers = [Reader(exchange), Reader(exchange)]
    url = MEMORY_URL if in_memory else rabbitmq_server.url
    transport = transport_of(url, exchange, [reader.subscription for reader in readers], as_it_is)
    running = [asyncio.create_task(work()) for work in transport.work]
    deliveries = await transport.publisher.publish([Message(id_, TYPE, b"{}", {}) for id_ in NUMBERS])
    assert deliveries == [Delivery(Fate.ROUTED)] * len(NUMBERS)
    async with asyncio.timeout(20):
        while not all(len(reader.handled) >= len(NUMBERS) for reader in readers):
            await asyncio.sleep(0.02)
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await transport.publisher.close()
    assert [sorted(reader.handled) for reader in readers] == [list(NUMBERS)] * 2


async def test_a_handler_in_memory_is_not_disturbed_since_it_would_hold_up_the_relay() -> None:
    def fail(handler: Handler) -> Handler:
        async def handle(message: Message) -> None:
            raise ChaosInjected

        return handle

    reader = Reader("x")
    transport = transport_of(MEMORY_URL, "x", [reader.subscription], fail)
    assert await transport.publisher.publish([Message("1", TYPE, b"{}", {})]) == [Delivery(Fate.ROUTED)]
    assert (reader.handled, list(transport.work)) == (["1"], [])
