"""Those who read a queue in tests, and what they find there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from payments_ledger.messaging.handling import ANY_TYPE
from payments_ledger.messaging.messages import DeadLetter, Handler, Later, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import connected
from payments_ledger.rabbitmq.consumer import RabbitConsumer
from tests.raw_amqp import (
    RawConnection,
)

TYPE = "it.happened"
GOOD = b"good"


def message(number: int = 0, type_: str = "it.happened") -> Message:
    return Message(str(number), type_, b'{"number": %d}' % number, {"X-Correlation-Id": "c", "X-Tenant-Id": "t"})


@asynccontextmanager
async def consuming(url: str, queue: Queue, handler: Handler) -> AsyncIterator[None]:
    task = asyncio.create_task(RabbitConsumer(url, queue, {"it.happened": handler}).run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@dataclass
class Heard:
    """What the handler was given, and how often the broker has delivered."""

    messages: list[Message] = field(default_factory=list)
    deliveries: list[bytes] = field(default_factory=list)
    connections: int = 0
    consumes: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, message: Message) -> None:
        self.messages.append(message)
        if message.body == b"bad":
            raise DeadLetter("bad")
        if message.body == b"later":
            raise Later("not yet")

    async def has(self, body: bytes, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while body not in [message.body for message in self.messages]:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def hearing(url: str, queue: Queue, heard: Heard) -> AsyncIterator[None]:
    """Ends once the broker has nothing left that it could deliver again."""

    class Counted(RabbitConsumer):
        async def _handle(self, channel: Any, incoming: AbstractIncomingMessage) -> None:
            heard.deliveries.append(incoming.body)
            await super()._handle(channel, incoming)

        async def _begin(self, connection: AbstractConnection, prefetch: int, lost: asyncio.Event) -> None:
            heard.connections += 1
            await super()._begin(connection, prefetch, lost)
            heard.consumes.set()

    task = asyncio.create_task(Counted(url, queue, {ANY_TYPE: heard.handle}).run())
    await asyncio.wait_for(heard.consumes.wait(), 20)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    # What was not acknowledged came back when the connection closed. What the broker gives up counts here until the
    # dead letters have confirmed it.
    async with asyncio.timeout(10):
        while await count(url, queue.name):
            await asyncio.sleep(0.05)


async def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def take_all(url: str, queue_name: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        declared = await channel.get_queue(queue_name, ensure=False)
        taken = []
        while incoming := await declared.get(no_ack=True, fail=False):
            taken.append(incoming)
        return taken


async def count(url: str, queue_name: str) -> int:
    async with connected(url) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue_name, passive=True)
        return declared.declaration_result.message_count or 0


async def dead_letters_are(url: str, queue: Queue, number: int) -> None:
    async with asyncio.timeout(20):
        while await count(url, queue.dead_letters) < number:
            await asyncio.sleep(0.05)


def publish(raw: RawConnection, queue: Queue, encoded: bytes, body: bytes, key: bytes = TYPE.encode()) -> bool:
    return raw.publish(queue.bindings[0][0], key, encoded, body)
