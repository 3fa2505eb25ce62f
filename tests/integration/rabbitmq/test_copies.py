"""What must wait steps aside, what cannot succeed is a dead letter; either way a copy is there first."""

import asyncio

import aio_pika
import pytest

from payments_ledger.messaging import handling
from payments_ledger.messaging.messages import DeadLetter, Later, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq import copies
from payments_ledger.rabbitmq.publisher import RabbitPublisher
from tests.integration.rabbitmq.readers import (
    consuming,
    eventually,
    message,
    take_all,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


async def test_a_message_that_cannot_succeed_is_dead_lettered_with_its_reason_and_the_next_is_handled(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        if message.id == "1":
            raise DeadLetter("not today")
        handled.append(message.id)

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1), message(2)])
        await eventually(lambda: handled == ["2"])
        await asyncio.sleep(0.2)
    [dead] = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert dead.headers["x-reason"] == "not today"
    assert dead.headers["x-original-routing-key"] == "it.happened"
    assert (dead.message_id, dead.body) == ("1", b'{"number": 1}')
    assert await take_all(rabbitmq_server.url, queue.name) == []


async def test_a_message_of_an_unknown_type_is_dead_lettered(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    async def handle(_: Message) -> None:
        raise AssertionError

    await publisher.publish([])
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"\xff"), queue.name)
    async with consuming(rabbitmq_server.url, queue, handle):
        await asyncio.sleep(0.5)
    [dead] = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert dead.headers["x-reason"] == f"no handler for {queue.name}"


async def test_a_message_that_must_wait_steps_aside_and_comes_back_with_its_type_and_count(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LATER_SECONDS", (0,))
    handled: list[tuple[str, str, int]] = []

    async def handle(message: Message) -> None:
        handled.append((message.id, message.type, message.failures))
        if message.id == "1" and message.failures < 2:
            raise Later("not yet")
        if message.id == "2" and message.failures < 1:
            raise ZeroDivisionError

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1), message(2), message(3)])
        await eventually(lambda: len(handled) == 6)
    assert handled[:3] == [(str(number), "it.happened", 0) for number in (1, 2, 3)]
    assert sorted(handled[3:]) == [("1", "it.happened", 1), ("1", "it.happened", 2), ("2", "it.happened", 1)]
    for name in (queue.name, queue.dead_letters, queue.retry_name(0)):
        assert await take_all(rabbitmq_server.url, name) == []


async def test_a_message_that_waits_in_vain_is_given_up(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LATER_SECONDS", (0,))
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 2)
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.failures)
        raise Later("not yet")

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1)])
        await eventually(lambda: handled == [0, 1])
        await asyncio.sleep(0.2)
    [dead] = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert dead.headers["x-reason"] == "given up after 2 attempts: not yet"
    assert dead.headers["x-attempts"] == 2
    assert dead.headers["x-original-routing-key"] == "it.happened"
    assert "x-death" not in dead.headers


async def test_a_message_that_could_not_be_put_aside_is_delivered_again(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    """Its dead-letter queue was deleted meanwhile: the consumer begins anew, declares it, and buries the message."""
    refuse = asyncio.Event()

    async def handle(_: Message) -> None:
        await refuse.wait()
        raise DeadLetter("not today")

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1)])
        async with await aio_pika.connect(rabbitmq_server.url) as connection:
            await (await connection.channel()).queue_delete(queue.dead_letters)
        refuse.set()
        await asyncio.sleep(2)
    [dead] = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert dead.message_id == "1"
    assert await take_all(rabbitmq_server.url, queue.name) == []
