"""The real broker: a message is published when it is in a queue, and acknowledged when its handler is done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from uuid import uuid4

import aio_pika
import pytest

from payments_ledger.messaging import messages as messaging
from payments_ledger.messaging.messages import BrokerUnavailable, DeadLetter, Delivery, Fate, Handler, Later, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.process.failpoints import arm, read_failpoints
from payments_ledger.rabbitmq import broker as rabbitmq
from payments_ledger.rabbitmq.broker import ASK_SECONDS, RabbitConsumer, RabbitPublisher, connected
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue() -> Queue:
    name = uuid4().hex
    return Queue(f"q.{name}", ((f"x.{name}", "it.happened"),), f"dead.{name}")


def message(number: int = 0, type_: str = "it.happened") -> Message:
    return Message(str(number), type_, b'{"number": %d}' % number, {"X-Correlation-Id": "c", "X-Tenant-Id": "t"})


@pytest.fixture
async def publisher(rabbitmq_server: RabbitmqServer, queue: Queue) -> AsyncIterator[RabbitPublisher]:
    publisher = RabbitPublisher(rabbitmq_server.url, queue.bindings[0][0], [queue])
    yield publisher
    await publisher.close()


@asynccontextmanager
async def consuming(url: str, queue: Queue, handler: Handler) -> AsyncIterator[None]:
    task = asyncio.create_task(RabbitConsumer(url, queue, {"it.happened": handler}).run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


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


async def test_a_published_message_is_durable_and_says_what_it_is(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    assert await publisher.publish([message(7)]) == [Delivery(Fate.ROUTED)]
    [incoming] = await take_all(rabbitmq_server.url, queue.name)
    assert (incoming.message_id, incoming.type, incoming.routing_key) == ("7", "it.happened", "it.happened")
    assert (incoming.delivery_mode, incoming.content_type) == (2, "application/json")
    assert incoming.timestamp is not None
    assert incoming.headers.items() >= {"X-Correlation-Id": "c", "X-Tenant-Id": "t"}.items()
    assert incoming.body == b'{"number": 7}'


async def test_a_batch_arrives_in_its_order(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    await publisher.publish([message(number) for number in range(300)])
    assert [incoming.message_id for incoming in await take_all(rabbitmq_server.url, queue.name)] == [
        str(number) for number in range(300)
    ]


async def test_a_message_that_reaches_no_queue_is_told_apart_from_those_that_do(publisher: RabbitPublisher) -> None:
    deliveries = await publisher.publish([message(1), message(2, "nobody.listens"), message(3)])
    assert [delivery.fate for delivery in deliveries] == [Fate.ROUTED, Fate.UNROUTED, Fate.ROUTED]


async def test_what_nobody_needs_is_not_asked_about_each_time_and_yet_arrives_once_somebody_listens(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    optional = replace(message(type_="nobody.listens"), is_needed=False)
    needed = message(type_="nobody.listens")
    assert [delivery.fate for delivery in await publisher.publish([optional])] == [Fate.UNROUTED]
    await bind(rabbitmq_server.url, queue, "nobody.listens")
    # Within the second it is told as before, though it arrives; what is needed is always asked about.
    assert [delivery.fate for delivery in await publisher.publish([optional, needed])] == [Fate.UNROUTED, Fate.ROUTED]
    assert len(await take_all(rabbitmq_server.url, queue.name)) == 2
    await asyncio.sleep(ASK_SECONDS)
    assert [delivery.fate for delivery in await publisher.publish([optional])] == [Fate.ROUTED]


async def bind(url: str, queue: Queue, routing_key: str) -> None:
    async with connected(url) as connection:
        channel = await connection.channel()
        declared = await channel.get_queue(queue.name)
        await declared.bind(queue.bindings[0][0], routing_key)


async def test_a_message_is_acknowledged_only_after_its_handler_is_done(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def never_ends(_: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def ends(_: Message) -> None:
        done.set()

    await publisher.publish([message()])
    consumer = asyncio.create_task(RabbitConsumer(rabbitmq_server.url, queue, {"it.happened": never_ends}).run())
    await asyncio.wait_for(begun.wait(), 10)
    # As a crash would: the connection goes while the handler runs.
    rabbitmq.DRAIN_SECONDS_MAX = 0.01
    consumer.cancel()
    with suppress(asyncio.CancelledError):
        await consumer
    rabbitmq.DRAIN_SECONDS_MAX = 10.0
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
    assert dead.headers["x-reason"] == f"nothing here handles {queue.name}"


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
        assert not await rabbitmq.is_up(rabbitmq_server.url)
        with pytest.raises(BrokerUnavailable):
            await publisher.publish([message(2)])
        await asyncio.to_thread(rabbitmq_server.start)
        assert await rabbitmq.is_up(rabbitmq_server.url)
        await publisher.publish([message(3)])
        await eventually(lambda: "3" in handled)


async def test_a_message_that_must_wait_steps_aside_and_comes_back_with_its_type_and_count(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "LATER_SECONDS", (1,))
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
    for name in (queue.name, queue.dead_letters, queue.retry_name(1)):
        assert await take_all(rabbitmq_server.url, name) == []


async def test_a_message_that_waits_in_vain_is_given_up(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "LATER_SECONDS", (1,))
    monkeypatch.setattr(messaging, "ATTEMPTS_MAX", 2)
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


async def test_a_publisher_declares_its_bindings_anew_when_somebody_takes_one_away(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    assert await publisher.publish([message(1)]) == [Delivery(Fate.ROUTED)]
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue.name)).unbind(*queue.bindings[0])
    assert [delivery.fate for delivery in await publisher.publish([message(2)])] == [Fate.UNROUTED]
    assert await publisher.publish([message(2)]) == [Delivery(Fate.ROUTED)]


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
        await rabbitmq.declare(connection, [queue])
    # What a kill right after the declaration leaves: a log without a name.
    name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue.name}">>)'
    rabbitmq_server.control("eval", f'rabbit_amqqueue:internal_delete({name}, <<"test">>).')
    errors = rabbitmq.BROKER_ERRORS.labels(queue.name)
    async with consuming(rabbitmq_server.url, queue, handle):
        await eventually(lambda: errors._value.get() >= 2)
        # docs/runbooks/QueueDamaged.md
        rabbitmq_server.control("eval", f"ra:force_delete_server(quorum_queues, {{'%2F_{queue.name}', node()}}).")
        publisher = RabbitPublisher(rabbitmq_server.url, queue.bindings[0][0], [queue])
        await publisher.publish([message(1)])
        await eventually(lambda: handled == ["1"])
        await publisher.close()
