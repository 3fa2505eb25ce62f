"""A message counts as published when it is in a queue, and what reaches none is told apart."""

import asyncio
from dataclasses import replace

import aio_pika
import pytest

from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import connected
from payments_ledger.rabbitmq.publisher import ASK_SECONDS, RabbitPublisher
from tests.integration.rabbitmq.readers import (
    message,
    take_all,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


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


async def test_a_publisher_declares_its_bindings_anew_when_somebody_takes_one_away(
    rabbitmq_server: RabbitmqServer, publisher: RabbitPublisher, queue: Queue
) -> None:
    assert await publisher.publish([message(1)]) == [Delivery(Fate.ROUTED)]
    async with await aio_pika.connect(rabbitmq_server.url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue.name)).unbind(*queue.bindings[0])
    assert [delivery.fate for delivery in await publisher.publish([message(2)])] == [Fate.UNROUTED]
    assert await publisher.publish([message(2)]) == [Delivery(Fate.ROUTED)]
