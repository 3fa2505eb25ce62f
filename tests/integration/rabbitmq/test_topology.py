"""Queues are declared with a delivery limit: the last resort against what ends its consumer each time."""

import aio_pika
import pytest

from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq import consumer, topology
from payments_ledger.rabbitmq.connection import connected
from payments_ledger.rabbitmq.topology import declare
from tests.integration.rabbitmq.readers import GOOD, Heard, dead_letters_are, hearing, publish, take_all
from tests.raw_amqp import properties, raw_connection, short_text
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("unforeseen")
async def test_what_ends_every_connection_is_given_up_by_the_broker_and_the_next_is_handled(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(topology._DELIVERY_LIMIT, "x-delivery-limit", 3)
    monkeypatch.setattr(consumer, "RECONNECT_SECONDS", (0.01,))
    heard = Heard()
    async with hearing(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            assert publish(raw, queue, properties({"app_id": short_text(b"poison")}), b"unreadable")
            assert publish(raw, queue, properties({}), GOOD)
        await heard.has(GOOD)
        await dead_letters_are(rabbitmq_server.url, queue, 1)
    # Beyond the limit, one that takes the messages one by one, and one that is taken up after it.
    assert 1 < heard.connections <= 6
    monkeypatch.undo()
    letters = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert [(letter.body, letter.headers["x-first-death-reason"]) for letter in letters] == [
        (b"unreadable", "delivery_limit")
    ]


async def test_a_queue_of_before_the_limit_is_consumed_as_it_is(rabbitmq_server: RabbitmqServer, queue: Queue) -> None:
    url, heard = rabbitmq_server.url, Heard()
    async with connected(url) as connection:
        await topology._declare(connection, queue, {})
        await declare(connection, [queue])
    async with hearing(url, queue, heard):
        with raw_connection(url) as raw:
            assert publish(raw, queue, properties({}), GOOD)
        await heard.has(GOOD)


@pytest.mark.usefixtures("unforeseen")
async def test_a_policy_gives_a_queue_of_before_the_limit(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of docs/how-to/operations.md."""
    monkeypatch.setattr(consumer, "RECONNECT_SECONDS", (0.01,))
    url, heard = rabbitmq_server.url, Heard()
    async with connected(url) as connection:
        await topology._declare(connection, queue, {})
    definition = '{"delivery-limit": 3, "dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}'
    pattern = f"^{queue.name}$"
    rabbitmq_server.control("set_policy", queue.name, pattern, definition, "--apply-to", "queues")
    try:
        async with hearing(url, queue, heard):
            with raw_connection(url) as raw:
                assert publish(raw, queue, properties({"app_id": short_text(b"poison")}), b"unreadable")
                assert publish(raw, queue, properties({}), GOOD)
            await heard.has(GOOD)
            await dead_letters_are(url, queue, 1)
    finally:
        rabbitmq_server.control("clear_policy", queue.name)
    monkeypatch.undo()
    assert [letter.body for letter in await take_all(url, queue.dead_letters)] == [b"unreadable"]


async def test_another_queue_of_that_name_is_not_taken_for_ours(rabbitmq_server: RabbitmqServer, queue: Queue) -> None:
    async with connected(rabbitmq_server.url) as connection:
        await (await connection.channel()).declare_queue(queue.name, durable=True)
        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
            await declare(connection, [queue])
