"""A message is acknowledged when its handler is done, and a consumer consumes again whatever happens."""

import asyncio
from contextlib import suppress
from typing import Any

import aio_pika
import pytest

from payments_ledger.messaging.messages import Message
from payments_ledger.messaging.publisher import Fate
from payments_ledger.messaging.subscription import Queue
from payments_ledger.process.failpoints import arm, read_failpoints
from payments_ledger.rabbitmq import consumer
from payments_ledger.rabbitmq.connection import connected
from payments_ledger.rabbitmq.consumer import BROKER_ERRORS, RabbitConsumer
from payments_ledger.rabbitmq.publisher import RabbitPublisher
from payments_ledger.rabbitmq.topology import DELIVERIES_MAX, declare
from tests.integration.rabbitmq.readers import (
    GOOD,
    Heard,
    consuming,
    eventually,
    hearing,
    message,
    publish,
    take_all,
)
from tests.raw_amqp import (
    properties,
    raw_connection,
    short_text,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


async def test_a_message_is_acknowledged_only_after_its_handler_is_done(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def never_ends(_: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def ends(_: Message) -> None:
        done.set()

    await publisher.publish([message()])
    consuming_task = asyncio.create_task(RabbitConsumer(rabbitmq_server.url, queue, {"it.happened": never_ends}).run())
    await asyncio.wait_for(begun.wait(), 10)
    # As a crash would: the connection goes while the handler runs.
    monkeypatch.setattr(consumer, "DRAIN_SECONDS_MAX", 0.01)
    consuming_task.cancel()
    with suppress(asyncio.CancelledError):
        await consuming_task
    monkeypatch.undo()
    async with consuming(rabbitmq_server.url, queue, ends):
        await asyncio.wait_for(done.wait(), 10)
    assert await take_all(rabbitmq_server.url, queue.name) == []


async def test_stopping_finishes_the_messages_in_hand(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    begun = asyncio.Event()

    async def takes_a_while(_: Message) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    await publisher.publish([message()])
    async with consuming(rabbitmq_server.url, queue, takes_a_while):
        await asyncio.wait_for(begun.wait(), 10)
    assert await take_all(rabbitmq_server.url, queue.name) == []


async def test_a_message_that_was_moved_by_the_queues_name_is_handled_by_its_type(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.type)

    await publisher.publish([])
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"{}", type="it.happened"), queue.name)
    async with consuming(rabbitmq_server.url, queue, handle):
        await eventually(lambda: handled == ["it.happened"])


async def test_a_consumer_declares_its_queue_anew_when_somebody_deletes_it(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.id)

    async with consuming(rabbitmq_server.url, queue, handle):
        await publisher.publish([message(1)])
        await eventually(lambda: handled == ["1"])
        async with await aio_pika.connect(rabbitmq_server.url) as connection:
            channel = await connection.channel()
            await channel.queue_delete(queue.name)
            async with asyncio.timeout(20):
                while [delivery.fate for delivery in await publisher.publish([message(2)])] != [Fate.ROUTED]:
                    await asyncio.sleep(0.05)
        await eventually(lambda: "2" in handled)


async def test_a_failure_that_nobody_foresaw_around_an_acknowledgement_leaves_the_message_to_the_broker(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.id)

    arm(read_failpoints("consumer.before_ack=error@1"))
    try:
        async with consuming(rabbitmq_server.url, queue, handle):
            await publisher.publish([message(1)])
            await eventually(lambda: handled == ["1", "1"])
    finally:
        arm({})
    assert await take_all(rabbitmq_server.url, queue.name) == []


async def test_a_queue_that_answers_541_is_counted_and_consumed_again_once_its_runbook_was_followed(
    rabbitmq_server: RabbitmqServer, queue: Queue
) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.id)

    async with connected(rabbitmq_server.url) as connection:
        await declare(connection, [queue])
    # What a kill right after the declaration leaves: a log without a name.
    name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue.name}">>)'
    rabbitmq_server.control("eval", f'rabbit_amqqueue:internal_delete({name}, <<"test">>).')
    errors = BROKER_ERRORS.labels(queue.name)
    async with consuming(rabbitmq_server.url, queue, handle):
        await eventually(lambda: errors._value.get() >= 2)
        # docs/runbooks/QueueDamaged.md
        rabbitmq_server.control("eval", f"ra:force_delete_server(quorum_queues, {{'%2F_{queue.name}', node()}}).")
        publisher = RabbitPublisher(rabbitmq_server.url, queue.bindings[0][0], [queue])
        await publisher.publish([message(1)])
        await eventually(lambda: handled == ["1"])
        await publisher.close()


@pytest.mark.usefixtures("unforeseen")
async def test_pauses_grow_while_each_connection_is_lost_without_progress(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float, result: Any = None) -> Any:
        if seconds in consumer.RECONNECT_SECONDS:
            pauses.append(seconds)
            seconds = 0.01
        return await sleep(seconds, result)

    monkeypatch.setattr(consumer, "RECONNECT_SECONDS", (0.21, 0.51, 1.01, 2.01, 5.01))
    monkeypatch.setattr(consumer.asyncio, "sleep", counted)  # type: ignore[attr-defined]
    heard = Heard()
    async with hearing(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            assert publish(raw, queue, properties({"app_id": short_text(b"poison")}), b"unreadable")
        async with asyncio.timeout(60):
            while len(pauses) <= DELIVERIES_MAX:
                await sleep(0.01)
            with raw_connection(rabbitmq_server.url) as raw:
                assert publish(raw, queue, properties({}), GOOD)
            await heard.has(GOOD)
    assert pauses[: DELIVERIES_MAX + 1] == [0.21, 0.51, 1.01, 2.01] + [5.01] * (DELIVERIES_MAX - 3)
    assert len(pauses) == DELIVERIES_MAX + 1
