"""RabbitMQ over aio-pika: confirmed publishing and acknowledged consuming, each on a connection of its own."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    DeliveryMode,
    ExchangeType,
    FieldValue,
)
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed, DeliveryError, PublishError
from aiormq import Channel as AmqpChannel
from aiormq import spec
from aiormq.exceptions import ConnectionInternalError
from pamqp import encode
from prometheus_client import Counter, Gauge

from payments_ledger.messaging.messages import (
    ATTEMPTS_MAX,
    LATER_SECONDS,
    BrokerUnavailable,
    DeadLetter,
    Delivery,
    Fate,
    Handler,
    Later,
    Message,
    find_handler,
    handle,
)
from payments_ledger.messaging.subscription import Queue
from payments_ledger.process.failpoints import Place, failpoint
from payments_ledger.rabbitmq import frames_together, lenient_decoding

lenient_decoding.install()

log = structlog.get_logger(__name__)

MESSAGES_IN_HAND = Gauge("ledger_messages_in_hand", "Messages taken from a queue and not yet handled", ["queue"])
BROKER_ERRORS = Counter(
    "ledger_queue_internal_errors_total", "Attempts to consume a queue that the broker answered with 541", ["queue"]
)

# aio-pika waits for ever while the broker blocks publishers (memory or disk alarm): every call has an end.
ANSWER_SECONDS_MAX = 5.0
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# How often the broker is asked whether a type of event that nobody needs has found a queue.
ASK_SECONDS = 1.0
UNROUTED = Delivery(Fate.UNROUTED, "no queue is bound for it")
# Twice a batch: while one batch is in the database, the next is already here.
PREFETCH = 400
# After a connection that was lost before anything was acknowledged, messages are taken one by one for so long: should
# one of them end each connection, the broker counts the deliveries of that one alone.
CAREFUL_SECONDS = 10.0
DRAIN_SECONDS_MAX = 10.0

# Headers that a message gets on its way around: what it was, how often it failed, and why it is dead.
ORIGINAL_ROUTING_KEY = "x-original-routing-key"
ORIGINAL_QUEUE = "x-original-queue"
ATTEMPTS = "x-attempts"
REASON = "x-reason"
DEAD_SINCE = "x-dead-since"
DEAD_LETTER_ID = "x-dead-letter-id"
MARKS = (ORIGINAL_ROUTING_KEY, ORIGINAL_QUEUE, ATTEMPTS, REASON, DEAD_SINCE, DEAD_LETTER_ID)
REASON_LENGTH_MAX = 500
# The broker's own marks, which a copy must not begin with.
_BROKER_MARKS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
# Further queues that a sender wishes: a copy would go to them as well, even to the one it came from, for ever.
_SENDERS_QUEUES = ("CC", "BCC")
# All headers are in one frame, of at most 128 KiB. A copy of more than this could not bear our marks beside them.
HEADERS_BYTES_MAX = 64 * 1024

# A message that the broker had to take back so often goes to the dead letters as it is: the last resort against one
# that ends its consumer each time. As RabbitMQ 4 has it by itself.
DELIVERIES_MAX = 20
# Queues that are older than this limit lack it, and cannot be declared with it (docs/how-to/operations.md).
_ARGUMENTS_OF_LATER: dict[str, FieldValue] = {
    "x-delivery-limit": DELIVERIES_MAX,
    # The broker keeps such a message until the dead letters have confirmed it; this needs the overflow policy.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

# What aio-pika raises when a connection is refused, lost or mute.
_UNREACHABLE = (AMQPError, ConnectionError, OSError, TimeoutError, asyncio.InvalidStateError, RuntimeError)


class RabbitPublisher:
    """Publishes to one durable topic exchange with publisher confirms."""

    def __init__(self, url: str, exchange: str, queues: Sequence[Queue]) -> None:
        """`queues` are declared before the first message, so that none comes before its queue."""
        self._url = url
        self._exchange_name = exchange
        self._queues = queues
        self._connection: AbstractConnection | None = None
        self._channel: AmqpChannel | None = None
        # Of each type that no queue took: until when its next ones are not asked about.
        self._unwanted_until: dict[str, float] = {}

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX * 2):
                channel = await self._ready_channel()
                deliveries = await asyncio.gather(*(self._publish_one(channel, message) for message in messages))
        except _UNREACHABLE as error:
            await self.close()
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
        if any(map(self._lacks_its_queue, messages, deliveries)):
            # Somebody has taken the queue or its binding away: they are declared anew before the next message.
            await self.close()
        return deliveries

    async def _publish_one(self, channel: AmqpChannel, message: Message) -> Delivery:
        """What nobody needs is asked about once a second: the broker would send each one back, whole, to say no."""
        if not message.is_needed and time.monotonic() < self._unwanted_until.get(message.type, 0):
            await _publish(channel, self._exchange_name, message, mandatory=False)
            return UNROUTED
        delivery = await _publish(channel, self._exchange_name, message, mandatory=True)
        if delivery is UNROUTED:
            self._unwanted_until[message.type] = time.monotonic() + ASK_SECONDS
        return delivery

    def _lacks_its_queue(self, message: Message, delivery: Delivery) -> bool:
        bindings = (binding for queue in self._queues for binding in queue.bindings)
        return delivery.fate is Fate.UNROUTED and (self._exchange_name, message.type) in bindings

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        await _close(connection)

    async def _ready_channel(self) -> AmqpChannel:
        if self._channel is None or self._connection is None or self._connection.is_closed:
            await self.close()
            self._connection = await _connect(self._url)
            await declare(self._connection, self._queues)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.declare_exchange(self._exchange_name, ExchangeType.TOPIC, durable=True)
            underlay = await channel.get_underlay_channel()
            assert isinstance(underlay, AmqpChannel)
            self._channel = underlay
        return self._channel


class RabbitConsumer:
    """Consumes one queue, reconnecting for as long as it runs; acknowledges a message once its handler is done."""

    def __init__(self, url: str, queue: Queue, handlers: Mapping[str, Handler]) -> None:
        self._url = url
        self._queue = queue
        self._handlers = handlers
        self._in_hand: set[asyncio.Task[None]] = set()
        MESSAGES_IN_HAND.labels(queue.name).set_function(lambda: len(self._in_hand))
        self._internal_errors = BROKER_ERRORS.labels(queue.name)
        self._takes = True
        # Whether a message was acknowledged since the connection was opened.
        self._progresses = False

    async def run(self) -> None:
        """Consumes until cancelled; what is in hand then is finished, within a limit, and acknowledged."""
        failures = 0
        is_careful = False
        while True:
            connection: AbstractConnection | None = None
            is_lost = True
            try:
                self._progresses = False
                connection = await _connect(self._url)
                lost = await self._consume(connection, prefetch=1 if is_careful else PREFETCH)
                log.info("consuming", queue=self._queue.name, one_by_one=is_careful)
                is_lost = await _is_set_within(lost, CAREFUL_SECONDS if is_careful else None)
                if is_lost:
                    log.warning("broker lost", queue=self._queue.name)
            except _UNREACHABLE as error:
                if isinstance(error, ConnectionInternalError):
                    self._internal_errors.inc()
                log.warning("broker away", queue=self._queue.name, reason=f"{type(error).__name__}: {error}")
            finally:
                await self._close_drained(connection)
            is_careful = is_lost and (is_careful or (connection is not None and not self._progresses))
            # To be connected is no progress: a message might end each connection.
            failures = failures if is_lost and not self._progresses else 0
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _consume(self, connection: AbstractConnection, prefetch: int) -> asyncio.Event:
        """Starts consuming; the event is set when the connection or its channel was lost."""
        lost = asyncio.Event()
        async with asyncio.timeout(ANSWER_SECONDS_MAX * 2):
            await self._begin(connection, prefetch, lost)
        return lost

    async def _begin(self, connection: AbstractConnection, prefetch: int, lost: asyncio.Event) -> None:
        connection.close_callbacks.add(lambda *_: lost.set())
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(lambda *_: lost.set())
        # A queue that was deleted takes its consumers along, and leaves their channel open.
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: lost.set())
        await channel.set_qos(prefetch_count=prefetch, timeout=ANSWER_SECONDS_MAX)
        await declare(connection, [self._queue])
        queue = await channel.get_queue(self._queue.name, ensure=False)
        self._takes = True

        async def take(incoming: AbstractIncomingMessage) -> None:
            if not self._takes:
                # It comes while the others are finished; the broker gives it to somebody else when the channel closes.
                return
            task = asyncio.create_task(self._handle(channel, incoming))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)

        await queue.consume(take, timeout=ANSWER_SECONDS_MAX)

    async def _handle(self, channel: AbstractChannel, incoming: AbstractIncomingMessage) -> None:
        message = self._read(incoming)
        try:
            # What is put elsewhere is confirmed there before it is acknowledged here.
            await failpoint(Place.CONSUMER_BEFORE_HANDLE)
            try:
                await handle(find_handler(self._handlers, message.type), message)
            except Later:
                await self._put_aside(channel, incoming, message)
                await failpoint(Place.CONSUMER_AFTER_COPY)
            except DeadLetter as error:
                await self._bury(channel, incoming, message, str(error))
                await failpoint(Place.CONSUMER_AFTER_COPY)
            await failpoint(Place.CONSUMER_BEFORE_ACK)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await incoming.ack()
            self._progresses = True
            await failpoint(Place.CONSUMER_AFTER_ACK)
        except _UNREACHABLE as error:
            # Not acknowledged: the broker delivers it again once the channel is closed, which makes us begin anew.
            # Handling a message twice does no harm.
            log.warning("message left to the broker", message_id=message.id, reason=f"{type(error).__name__}: {error}")
            await _close(channel)
        except Exception:
            # Nobody foresaw this either, and a message that nobody acknowledges would stay with us for ever.
            log.exception("message left to the broker", message_id=message.id)
            await _close(channel)

    def _read(self, incoming: AbstractIncomingMessage) -> Message:
        """The message, its headers as text.

        The routing key says its type. A message that comes back by the queue's name (from a delay, or replayed by an
        operator) has lost that key, but bears it in a header, or its type as a property.
        """
        headers = {name: str(value) for name, value in incoming.headers.items()}
        type_ = incoming.routing_key or ""
        if type_ == self._queue.name:
            type_ = headers.get(ORIGINAL_ROUTING_KEY) or incoming.type or type_
        attempts = incoming.headers.get(ATTEMPTS)
        # Anybody can write the header, and any number into it.
        failures = min(max(attempts, 0), ATTEMPTS_MAX - 1) if isinstance(attempts, int) else 0
        return Message(incoming.message_id or "", type_, incoming.body, headers, failures)

    async def _put_aside(self, channel: AbstractChannel, incoming: AbstractIncomingMessage, message: Message) -> None:
        """Puts a copy into the delay queue that its failures have earned it."""
        seconds = LATER_SECONDS[min(message.failures, len(LATER_SECONDS) - 1)]
        await declare_retry(channel, self._queue, seconds)
        marks: dict[str, FieldValue] = {ORIGINAL_ROUTING_KEY: message.type, ATTEMPTS: message.failures + 1}
        await put(channel, self._queue.retry_name(seconds), copy_of(incoming, marks))

    async def _bury(
        self, channel: AbstractChannel, incoming: AbstractIncomingMessage, message: Message, reason: str
    ) -> None:
        """Puts a copy with the reason into the dead-letter queue."""
        marks: dict[str, FieldValue] = {
            ORIGINAL_ROUTING_KEY: message.type,
            ORIGINAL_QUEUE: self._queue.name,
            ATTEMPTS: message.failures + 1,
            # What a sender wrote may be quoted in the reason, and may be no text that AMQP can carry.
            REASON: reason[:REASON_LENGTH_MAX].encode(errors="backslashreplace").decode(),
            DEAD_SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
            DEAD_LETTER_ID: uuid4().hex,
        }
        await put(channel, self._queue.dead_letters, copy_of(incoming, marks))

    async def _close_drained(self, connection: AbstractConnection | None) -> None:
        """Lets the messages in hand finish before their channel goes; a lost channel has nothing to wait for."""
        self._takes = False
        if self._in_hand and connection and not connection.is_closed:
            await asyncio.wait(self._in_hand, timeout=DRAIN_SECONDS_MAX)
        for task in self._in_hand:
            task.cancel()
        await _close(connection)


async def _is_set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages are ready in a queue, and how many consumers it has."""

    queue: str
    is_dead_letters: bool
    messages: int
    consumers: int


class QueueGauge:
    """Asks how much lies in queues and in their dead-letter queues, over a connection of its own."""

    def __init__(self, url: str, queues: Sequence[Queue]) -> None:
        self._url = url
        self._queues = queues
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def depths(self) -> list[Depth]:
        """Raises BrokerUnavailable."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX * 2):
                channel = await self._ready_channel()
                return [
                    await _depth(channel, name, is_dead_letters=name == queue.dead_letters)
                    for queue in self._queues
                    for name in (queue.name, queue.dead_letters)
                ]
        except _UNREACHABLE as error:
            await self.close()
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        await _close(connection)

    async def _ready_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await self.close()
            self._connection = await _connect(self._url)
            # To ask for a queue that is not there would end the channel.
            await declare(self._connection, self._queues)
            self._channel = await self._connection.channel()
        return self._channel


async def _depth(channel: AbstractChannel, name: str, *, is_dead_letters: bool) -> Depth:
    found = (await channel.declare_queue(name, passive=True, timeout=ANSWER_SECONDS_MAX)).declaration_result
    return Depth(name, is_dead_letters, found.message_count or 0, found.consumer_count or 0)


async def declare(connection: AbstractConnection, queues: Sequence[Queue]) -> None:
    """Declares the queues with their exchanges, bindings and dead-letter queues; can be repeated.

    A queue that an older version declared, without a limit of deliveries, is taken as it is.
    """
    for queue in queues:
        try:
            await _declare(connection, queue, _ARGUMENTS_OF_LATER)
        except ChannelPreconditionFailed as error:
            if not any(name in str(error) for name in _ARGUMENTS_OF_LATER):
                raise
            log.warning(
                "queue has no delivery limit, see docs/how-to/operations.md", queue=queue.name, reason=str(error)
            )
            await _declare(connection, queue, {})


async def _declare(connection: AbstractConnection, queue: Queue, arguments: Mapping[str, FieldValue]) -> None:
    """On a channel of its own, which a refusal ends."""
    channel = await connection.channel()
    await channel.declare_queue(
        queue.dead_letters, durable=True, arguments={"x-queue-type": "quorum"}, timeout=ANSWER_SECONDS_MAX
    )
    declared = await channel.declare_queue(
        queue.name,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue.dead_letters,
            **arguments,
        },
        timeout=ANSWER_SECONDS_MAX,
    )
    for exchange_name, routing_key in queue.bindings:
        exchange = await channel.declare_exchange(
            exchange_name, ExchangeType.TOPIC, durable=True, timeout=ANSWER_SECONDS_MAX
        )
        await declared.bind(exchange, routing_key, timeout=ANSWER_SECONDS_MAX)
    await channel.close()


async def declare_retry(channel: AbstractChannel, queue: Queue, seconds: int) -> None:
    """Declares the queue whose messages come back to `queue` after so many seconds, at least once."""
    await channel.declare_queue(
        queue.retry_name(seconds),
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": seconds * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue.name,
            # The broker then keeps a message until the other queue has confirmed it; this needs the overflow policy.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
        timeout=ANSWER_SECONDS_MAX,
    )


async def put(channel: AbstractChannel, queue_name: str, message: aio_pika.Message) -> None:
    """Publishes to one queue; returns once the broker has confirmed that it is there."""
    await channel.default_exchange.publish(message, queue_name, mandatory=True, timeout=ANSWER_SECONDS_MAX)


def copy_of(incoming: AbstractIncomingMessage, marks: Mapping[str, FieldValue]) -> aio_pika.Message:
    """The same message with its headers and `marks`, but without what the broker or we noted on its way before.

    What a sender may put into headers and a client cannot send on is left out, too.
    """
    headers = {
        name: value
        for name, value in incoming.headers.items()
        if name not in (*MARKS, *_SENDERS_QUEUES) and not name.startswith(_BROKER_MARKS) and _can_be_sent(name, value)
    }
    if len(encode.field_table(headers)) > HEADERS_BYTES_MAX:
        headers = {}
    return aio_pika.Message(
        incoming.body,
        headers={**headers, **marks},
        content_type=incoming.content_type,
        content_encoding=incoming.content_encoding,
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=incoming.correlation_id,
        message_id=incoming.message_id,
        type=incoming.type,
        timestamp=incoming.timestamp,
        app_id=incoming.app_id,
    )


def _can_be_sent(name: str, value: FieldValue) -> bool:
    try:
        encode.field_table({name: value})
    except (struct.error, TypeError, ValueError, ArithmeticError, RecursionError):
        return False
    return True


async def is_up(url: str) -> bool:
    """Whether a connection can be opened now."""
    try:
        await _close(await _connect(url))
    except _UNREACHABLE:
        return False
    return True


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AbstractConnection]:
    """A connection for as long as the block lasts; raises BrokerUnavailable."""
    try:
        connection = await _connect(url)
    except _UNREACHABLE as error:
        raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
    try:
        yield connection
    finally:
        await _close(connection)


def server_version(connection: AbstractConnection) -> str | None:
    """The version that the broker told when the connection was opened."""
    transport = connection.transport
    version = transport.connection.server_properties.get("version") if transport else None
    return str(version) if version else None


async def _connect(url: str) -> AbstractConnection:
    return await aio_pika.connect(
        url,
        timeout=ANSWER_SECONDS_MAX,
        client_properties={"product": "payments-ledger"},
        connection_class=frames_together.Connection,
    )


async def _close(connection: AbstractConnection | AbstractChannel | None) -> None:
    if connection is None or connection.is_closed:
        return
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await connection.close()
    except _UNREACHABLE as error:
        log.debug("connection closed uncleanly", reason=str(error))


async def _publish(channel: AmqpChannel, exchange: str, message: Message, *, mandatory: bool) -> Delivery:
    """Returns once the broker has confirmed the message, or given it back if it is mandatory; has no end of its own."""
    properties = spec.Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=dict(message.headers),
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=message.id,
        timestamp=datetime.now(UTC),
        message_type=message.type,
    )
    try:
        await channel.basic_publish(
            message.body,
            exchange=exchange,
            routing_key=message.type,
            properties=properties,
            mandatory=mandatory,
            # aio-pika waits until each message is on its way before it takes the next one: a write for every message,
            # and a third more of this process's time.
            wait=False,
        )
    except PublishError:
        return UNROUTED
    except DeliveryError as error:
        raise BrokerUnavailable(f"the broker refused {message.type}: {error}") from error
    return Delivery(Fate.ROUTED)
