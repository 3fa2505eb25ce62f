"""Messages with metadata as no client library would send it: each is handled or a dead letter, and nothing loops."""

import asyncio
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.messaging import handling
from payments_ledger.messaging.messages import Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq import copies
from tests.integration.rabbitmq.readers import (
    GOOD,
    TYPE,
    Heard,
    dead_letters_are,
    hearing,
    publish,
    take_all,
)
from tests.poison import BODIES, FOREVER, MICROSECONDS_OF_2026, PROPERTIES, hostile_metadata
from tests.profiles import examples
from tests.raw_amqp import (
    headers,
    integer,
    properties,
    raw_connection,
    short_text,
    text,
    timestamp,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue() -> Queue:
    """Bound to routing keys that are not text, too."""
    name = uuid4().hex
    return Queue(f"q.{name}", ((f"x.{name}", "it.*"),), f"dead.{name}")


HOSTILE = hostile_metadata("some.queue")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_message_with_hostile_metadata_is_handled_and_if_it_cannot_succeed_a_dead_letter(
    rabbitmq_server: RabbitmqServer, queue: Queue, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LATER_SECONDS", (0,))
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 2)
    heard, encoded = Heard(), hostile_metadata(queue.name)[name]
    async with hearing(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            for body in (b"well", b"bad", b"later", GOOD):
                assert publish(raw, queue, encoded if body != GOOD else properties({}), body)
        await heard.has(GOOD)
        await dead_letters_are(rabbitmq_server.url, queue, 2)
        await asyncio.sleep(0.1)
    assert heard.connections == 1
    assert heard.deliveries.count(b"well") == heard.deliveries.count(b"bad") == 1
    assert heard.deliveries.count(b"later") in (1, 2)
    letters = {letter.body: letter.headers for letter in await take_all(rabbitmq_server.url, queue.dead_letters)}
    assert letters.keys() == {b"bad", b"later"}
    assert letters[b"bad"]["x-reason"] == "bad"
    assert str(letters[b"later"]["x-reason"]).startswith("given up after ")
    assert {marks["x-original-routing-key"] for marks in letters.values()} == {TYPE}


async def test_a_routing_key_that_is_not_text_is_handled_like_any_other(
    rabbitmq_server: RabbitmqServer, queue: Queue
) -> None:
    heard = Heard()
    async with hearing(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            assert publish(raw, queue, properties({}), b"bad", b"it.\xff\xfe")
            assert publish(raw, queue, properties({}), GOOD)
        await heard.has(GOOD)
    assert (heard.connections, [message.type for message in heard.messages]) == (1, ["it.��", TYPE])
    [letter] = await take_all(rabbitmq_server.url, queue.dead_letters)
    assert letter.headers["x-original-routing-key"] == "it.��"


async def test_only_what_cannot_be_read_of_the_metadata_is_left_out(
    rabbitmq_server: RabbitmqServer, queue: Queue
) -> None:
    heard = Heard()
    encoded = {
        "timestamp": timestamp(MICROSECONDS_OF_2026),
        "message_id": short_text(b"id-1"),
        "headers": headers(
            [(b"X-Tenant-Id", text(b"t")), (b"bad", b"T" + FOREVER), (b"x-attempts", integer(1)), (b"last", b"t\x01")]
        ),
    }
    async with hearing(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            assert publish(raw, queue, properties(encoded), GOOD)
        await heard.has(GOOD)
    [message] = heard.messages
    assert message == Message("id-1", TYPE, GOOD, {"X-Tenant-Id": "t", "x-attempts": "1", "last": "True"}, failures=1)


async def test_after_any_properties_headers_and_body_the_next_good_message_is_handled_and_nothing_loops(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LATER_SECONDS", (0,))
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 2)
    url, loop, heard = rabbitmq_server.url, asyncio.get_running_loop(), Heard()
    sent = taken = 0

    async def send(encoded: dict[str, bytes], body: bytes, key: bytes) -> bool:
        good = uuid4().bytes
        with raw_connection(url) as raw:
            is_taken = await asyncio.to_thread(publish, raw, queue, properties(encoded), body, b"it." + key)
        # A message that the broker itself refuses ends its sender's connection.
        with raw_connection(url) as raw:
            assert await asyncio.to_thread(publish, raw, queue, properties({}), good)
        await heard.has(good)
        return is_taken

    # Hypothesis calls what is not asynchronous, so it has a thread of its own.
    @examples(40)
    @given(PROPERTIES, BODIES, st.binary(max_size=20).filter(lambda key: b"." not in key))
    def any_message(encoded: dict[str, bytes], body: bytes, key: bytes) -> None:
        nonlocal sent, taken
        sent += 1
        taken += asyncio.run_coroutine_threadsafe(send(encoded, body, key), loop).result(60)

    async with hearing(url, queue, heard):
        await asyncio.to_thread(any_message)
        # Those that step aside come back, once. The broker counts what a quorum queue holds every few seconds.
        async with asyncio.timeout(30):
            while f"{queue.name}\t0\t0" not in await asyncio.to_thread(
                rabbitmq_server.control, "list_queues", "name", "messages_ready", "messages_unacknowledged"
            ):
                await asyncio.sleep(0.2)
    assert taken > sent / 4
    assert heard.connections == 1
    # Each once, and once more what steps aside.
    stepped_aside = sum(message.body == b"later" and message.failures > 0 for message in heard.messages)
    assert len(heard.deliveries) <= sent + taken + stepped_aside
    assert stepped_aside <= taken
