"""The gauges of queues show how much lies in each, among its dead letters too, and how many consume it."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from payments_ledger.messaging.messages import BrokerUnavailable, DeadLetter, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.gauges import QueueGauges, keep_measuring_queues
from payments_ledger.rabbitmq.publisher import RabbitPublisher
from tests.integration.rabbitmq.readers import consuming, count, message
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


def shown(metric: str, name: str, kind: str) -> float | None:
    return REGISTRY.get_sample_value(f"ledger_queue_{metric}", {"queue": name, "kind": kind})


async def test_a_queue_shows_its_messages_its_dead_letters_and_its_consumers(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    async def refuse(_: Message) -> None:
        raise DeadLetter("not today")

    gauges = QueueGauges(rabbitmq_server.url, [queue])
    await publisher.publish([message(1), message(2)])
    await gauges.measure()
    assert (shown("messages", queue.name, "work"), shown("consumers", queue.name, "work")) == (2, 0)
    assert shown("messages", queue.dead_letters, "dead_letters") == 0
    async with consuming(rabbitmq_server.url, queue, refuse):
        async with asyncio.timeout(20):
            while await count(rabbitmq_server.url, queue.dead_letters) < 2:
                await asyncio.sleep(0.05)
        await gauges.measure()
    assert (shown("messages", queue.name, "work"), shown("consumers", queue.name, "work")) == (0, 1)
    assert shown("messages", queue.dead_letters, "dead_letters") == 2
    await gauges.close()


async def test_measuring_notes_when_the_broker_last_responded(rabbitmq_server: RabbitmqServer, queue: Queue) -> None:
    measuring = asyncio.create_task(keep_measuring_queues(rabbitmq_server.url, [queue]))
    async with asyncio.timeout(20):
        while shown("messages", queue.name, "work") is None:
            await asyncio.sleep(0.02)
    measuring.cancel()
    with suppress(asyncio.CancelledError):
        await measuring
    assert REGISTRY.get_sample_value("ledger_gauges_timestamp_seconds", {"of": "broker"})


async def test_a_broker_that_is_unreachable_raises_and_is_asked_anew(queue: Queue) -> None:
    gauges = QueueGauges("amqp://127.0.0.1:1/", [queue])
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await gauges.measure()
