"""The broker goes away, and comes back."""

import asyncio

import pytest

from payments_ledger.messaging.messages import BrokerUnavailable, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import UNREACHABLE, connect, is_up
from payments_ledger.rabbitmq.publisher import RabbitPublisher
from tests.integration.rabbitmq.readers import (
    consuming,
    eventually,
    message,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


async def test_publisher_and_consumer_come_back_by_themselves(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.id)

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1)])
        await eventually(lambda: handled == ["1"])
        await asyncio.to_thread(rabbitmq_server.stop)
        assert not await is_up(rabbitmq_server.url)
        with pytest.raises(BrokerUnavailable):
            await publisher.publish([message(2)])
        await asyncio.to_thread(rabbitmq_server.start)
        assert await is_up(rabbitmq_server.url)
        await publisher.publish([message(3)])
        await eventually(lambda: "3" in handled)


async def test_a_broker_that_closes_the_connection_at_once_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1") as server:
        [listener] = server.sockets
        # The end of the stream has come before the client looks: without this it only sometimes has.
        monkeypatch.setattr(asyncio.StreamReader, "at_eof", lambda _: True)
        with pytest.raises(UNREACHABLE):
            await connect(f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}/")
