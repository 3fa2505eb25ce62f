"""Messages with metadata as no client library would send it: each is handled or a dead letter, and nothing loops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, FieldValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from payments_ledger.messaging import messages as messaging
from payments_ledger.messaging.messages import ANY_TYPE, DeadLetter, Later, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq import broker as rabbitmq
from payments_ledger.rabbitmq import lenient_decoding
from payments_ledger.rabbitmq.broker import DELIVERIES_MAX, RabbitConsumer, connected, copy_of, declare
from tests.poison import FOREVER, MICROSECONDS_OF_2026, hostile_metadata
from tests.raw_amqp import (
    RawConnection,
    headers,
    integer,
    long_text,
    properties,
    raw_connection,
    short_text,
    text,
    timestamp,
)
from tests.services import RabbitmqServer

pytestmark = pytest.mark.anyio

TYPE = "it.happened"
GOOD = b"good"


@pytest.fixture
def queue() -> Queue:
    name = uuid4().hex
    return Queue(f"q.{name}", ((f"x.{name}", "it.*"),), f"dead.{name}")


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
async def consuming(url: str, queue: Queue, heard: Heard) -> AsyncIterator[None]:
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


async def count(url: str, queue_name: str) -> int:
    async with connected(url) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue_name, passive=True)
        return declared.declaration_result.message_count or 0


async def dead_letters_are(url: str, queue: Queue, number: int) -> None:
    async with asyncio.timeout(20):
        while await count(url, queue.dead_letters) < number:
            await asyncio.sleep(0.05)


async def take_all(url: str, queue_name: str) -> list[AbstractIncomingMessage]:
    async with connected(url) as connection:
        declared = await (await connection.channel()).get_queue(queue_name, ensure=False)
        taken = []
        while incoming := await declared.get(no_ack=True, fail=False):
            taken.append(incoming)
        return taken


def publish(raw: RawConnection, queue: Queue, encoded: bytes, body: bytes, key: bytes = TYPE.encode()) -> bool:
    return raw.publish(queue.bindings[0][0], key, encoded, body)


HOSTILE = hostile_metadata("some.queue")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_message_with_hostile_metadata_is_handled_and_if_it_cannot_succeed_a_dead_letter(
    rabbitmq_server: RabbitmqServer, queue: Queue, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "LATER_SECONDS", (1,))
    monkeypatch.setattr(messaging, "ATTEMPTS_MAX", 2)
    heard, encoded = Heard(), hostile_metadata(queue.name)[name]
    async with consuming(rabbitmq_server.url, queue, heard):
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
    async with consuming(rabbitmq_server.url, queue, heard):
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
    async with consuming(rabbitmq_server.url, queue, heard):
        with raw_connection(rabbitmq_server.url) as raw:
            assert publish(raw, queue, properties(encoded), GOOD)
        await heard.has(GOOD)
    [message] = heard.messages
    assert message == Message("id-1", TYPE, GOOD, {"X-Tenant-Id": "t", "x-attempts": "1", "last": "True"}, failures=1)


# What no client library encodes, and what it does encode: names that mean something to us or to the broker are among
# them.
TEXTS = st.binary(max_size=40) | st.text(max_size=10).map(str.encode)
NAMES = TEXTS | st.sampled_from(
    [
        *(name.encode() for name in rabbitmq.MARKS),
        b"x-death",
        b"x-delivery-count",
        b"X-Tenant-Id",
        b"traceparent",
        b"BCC",
    ]
)


def fixed(letter: bytes, length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length).map(lambda value: letter + value)


SCALARS = st.one_of(
    *(fixed(letter, 1) for letter in (b"b", b"B")),
    st.sampled_from([b"t\x00", b"t\x01", b"V"]),
    *(fixed(letter, 2) for letter in (b"s", b"u")),
    *(fixed(letter, 4) for letter in (b"I", b"i", b"f")),
    *(fixed(letter, 8) for letter in (b"l", b"d", b"T")),
    fixed(b"D", 5),
    TEXTS.map(text),
    TEXTS.map(lambda value: b"x" + long_text(value)),
)
VALUES = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(values, max_size=4).map(lambda items: b"A" + long_text(b"".join(items)))
        | st.lists(st.tuples(TEXTS, values), max_size=4).map(lambda fields: b"F" + headers(fields))
    ),
    max_leaves=8,
)
SHORT_TEXTS = TEXTS.map(short_text)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": SHORT_TEXTS,
        "content_encoding": SHORT_TEXTS,
        "headers": st.lists(st.tuples(NAMES, VALUES), max_size=6).map(headers),
        "delivery_mode": st.sampled_from([b"\x01", b"\x02", b"\x02", b"\x07"]),
        "priority": st.binary(min_size=1, max_size=1),
        "correlation_id": SHORT_TEXTS,
        "reply_to": SHORT_TEXTS,
        "expiration": st.sampled_from([b"60000", b"", b"-1", b"1e3"]).map(short_text),
        "message_id": SHORT_TEXTS,
        "timestamp": st.integers(0, 2**64 - 1).map(timestamp),
        "message_type": SHORT_TEXTS,
        "user_id": st.sampled_from([b"guest", b"somebody"]).map(short_text),
        "app_id": SHORT_TEXTS,
    },
)
BODIES = st.binary(max_size=200) | st.sampled_from([b"bad", b"later"])


async def test_after_any_properties_headers_and_body_the_next_good_message_is_handled_and_nothing_loops(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "LATER_SECONDS", (1,))
    monkeypatch.setattr(messaging, "ATTEMPTS_MAX", 2)
    url, loop, heard = rabbitmq_server.url, asyncio.get_running_loop(), Heard()
    examples = taken = 0

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
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(PROPERTIES, BODIES, st.binary(max_size=20).filter(lambda key: b"." not in key))
    def any_message(encoded: dict[str, bytes], body: bytes, key: bytes) -> None:
        nonlocal examples, taken
        examples += 1
        taken += asyncio.run_coroutine_threadsafe(send(encoded, body, key), loop).result(60)

    async with consuming(url, queue, heard):
        await asyncio.to_thread(any_message)
        # Those that step aside come back after a second, once.
        await asyncio.sleep(1.5)
        shown = rabbitmq_server.control("list_queues", "name", "messages_ready", "messages_unacknowledged")
    assert taken > examples / 4
    assert heard.connections == 1
    assert f"{queue.name}\t0\t0" in shown
    # Each once, and once more what steps aside.
    stepped_aside = sum(message.body == b"later" and message.failures > 0 for message in heard.messages)
    assert len(heard.deliveries) <= examples + taken + stepped_aside
    assert stepped_aside <= taken


# ---------------------------------------------------------------------------------------------------------------------
# The last resort: what ends its consumer each time, for a reason that nobody has foreseen


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that our decoding does not know, either."""
    decode = ContentHeader.unmarshal

    def refuse(header: ContentHeader, data: bytes) -> None:
        decode(header, data)
        if header.properties.app_id == "poison":
            raise ValueError("unforeseen")

    monkeypatch.setattr(ContentHeader, "unmarshal", refuse)


@pytest.mark.usefixtures("unforeseen")
async def test_what_ends_every_connection_is_given_up_by_the_broker_and_the_next_is_handled(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rabbitmq._ARGUMENTS_OF_LATER, "x-delivery-limit", 3)
    monkeypatch.setattr(rabbitmq, "RECONNECT_SECONDS", (0.01,))
    heard = Heard()
    async with consuming(rabbitmq_server.url, queue, heard):
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


@pytest.mark.usefixtures("unforeseen")
async def test_pauses_grow_while_each_connection_is_lost_without_progress(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float, result: Any = None) -> Any:
        if seconds in rabbitmq.RECONNECT_SECONDS:
            pauses.append(seconds)
            seconds = 0.01
        return await sleep(seconds, result)

    monkeypatch.setattr(rabbitmq, "RECONNECT_SECONDS", (0.21, 0.51, 1.01, 2.01, 5.01))
    monkeypatch.setattr(rabbitmq.asyncio, "sleep", counted)  # type: ignore[attr-defined]
    heard = Heard()
    async with consuming(rabbitmq_server.url, queue, heard):
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


async def test_a_queue_of_before_the_limit_is_consumed_as_it_is(rabbitmq_server: RabbitmqServer, queue: Queue) -> None:
    url, heard = rabbitmq_server.url, Heard()
    async with connected(url) as connection:
        await rabbitmq._declare(connection, queue, {})
        await declare(connection, [queue])
    async with consuming(url, queue, heard):
        with raw_connection(url) as raw:
            assert publish(raw, queue, properties({}), GOOD)
        await heard.has(GOOD)


@pytest.mark.usefixtures("unforeseen")
async def test_a_policy_gives_a_queue_of_before_the_limit(
    rabbitmq_server: RabbitmqServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of docs/how-to/operations.md."""
    monkeypatch.setattr(rabbitmq, "RECONNECT_SECONDS", (0.01,))
    url, heard = rabbitmq_server.url, Heard()
    async with connected(url) as connection:
        await rabbitmq._declare(connection, queue, {})
    definition = '{"delivery-limit": 3, "dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}'
    pattern = f"^{queue.name}$"
    rabbitmq_server.control("set_policy", queue.name, pattern, definition, "--apply-to", "queues")
    try:
        async with consuming(url, queue, heard):
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


# ---------------------------------------------------------------------------------------------------------------------
# Pure: bytes in, properties out


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_reading_properties_ends_without_an_error(data: bytes) -> None:
    lenient_decoding.read_properties(data)


@given(PROPERTIES)
def test_what_was_read_can_be_sent_on(encoded: dict[str, bytes]) -> None:
    read = lenient_decoding.read_properties(properties(encoded))
    incoming = aio_pika.Message(
        b"",
        headers=read.headers,
        message_id=read.message_id,
        timestamp=read.timestamp,
        correlation_id=read.correlation_id,
        type=read.message_type,
    )
    assert len(copy_of(incoming, {"x-attempts": 1}).properties.marshal()) < rabbitmq.HEADERS_BYTES_MAX * 2  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.text(max_size=60), st.text(max_size=60))
def test_what_a_client_library_encodes_is_read_as_it_was(seconds: int, id_: str, value: str) -> None:
    fields: dict[str, FieldValue] = {"h": value, "n": 7, "l": [True, None, {"": "x"}]}
    at = datetime.fromtimestamp(seconds, UTC)
    written = aio_pika.Message(b"", headers=fields, timestamp=at, message_id=id_)
    read = lenient_decoding.read_properties(written.properties.marshal())
    assert (read.timestamp, read.headers, read.message_id) == (at, fields, id_ or None)
