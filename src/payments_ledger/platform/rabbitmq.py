"""RabbitMQ over aio-pika: confirmed publishing and acknowledged consuming, each on a connection of its own."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    DeliveryMode,
    ExchangeType,
)
from aio_pika.exceptions import AMQPError, DeliveryError, PublishError

from payments_ledger.platform.messaging import (
    BrokerAway,
    DeadLetter,
    Delivery,
    Fate,
    Handler,
    Message,
    handle_until_done,
)

log = structlog.get_logger(__name__)

# aio-pika waits for ever while the broker blocks publishers (memory or disk alarm): every call has an end.
ANSWER_SECONDS_MAX = 5.0
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# Twice a batch: while one batch is in the database, the next is already here.
PREFETCH = 400
DRAIN_SECONDS_MAX = 10.0

# What aio-pika raises when a connection is refused, lost or mute.
_AWAY = (AMQPError, ConnectionError, OSError, TimeoutError, asyncio.InvalidStateError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, the (exchange, routing key) pairs bound to it, and where its dead letters go."""

    name: str
    bindings: tuple[tuple[str, str], ...]
    dead_letters: str


class RabbitPublisher:
    """Publishes to one durable topic exchange with publisher confirms."""

    def __init__(self, url: str, exchange: str, queues: Sequence[Queue]) -> None:
        """`queues` are declared before the first message, so that none comes before its queue."""
        self._url = url
        self._exchange_name = exchange
        self._queues = queues
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX * 2):
                exchange = await self._ready_exchange()
                return list(await asyncio.gather(*(_publish(exchange, message) for message in messages)))
        except _AWAY as error:
            await self.close()
            raise BrokerAway(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        await _close(connection)

    async def _ready_exchange(self) -> AbstractExchange:
        if self._exchange is None or self._connection is None or self._connection.is_closed:
            await self.close()
            self._connection = await _connect(self._url)
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare(channel, self._queues)
            self._exchange = await channel.declare_exchange(self._exchange_name, ExchangeType.TOPIC, durable=True)
        return self._exchange


class RabbitConsumer:
    """Consumes one queue, reconnecting for as long as it runs; acknowledges a message once its handler is done."""

    def __init__(self, url: str, queue: Queue, handlers: Mapping[str, Handler]) -> None:
        self._url = url
        self._queue = queue
        self._handlers = handlers
        self._in_hand: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Consumes until cancelled; what is in hand then is finished, within a limit, and acknowledged."""
        failures = 0
        while True:
            connection: AbstractConnection | None = None
            try:
                connection = await _connect(self._url)
                lost = await self._consume(connection)
                log.info("consuming", queue=self._queue.name)
                failures = 0
                await lost.wait()
                log.warning("broker lost", queue=self._queue.name)
            except _AWAY as error:
                log.warning("broker away", queue=self._queue.name, reason=f"{type(error).__name__}: {error}")
            finally:
                await self._close_drained(connection)
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _consume(self, connection: AbstractConnection) -> asyncio.Event:
        """Starts consuming; the event is set when the connection or its channel was lost."""
        lost = asyncio.Event()
        async with asyncio.timeout(ANSWER_SECONDS_MAX * 2):
            await self._begin(connection, lost)
        return lost

    async def _begin(self, connection: AbstractConnection, lost: asyncio.Event) -> None:
        connection.close_callbacks.add(lambda *_: lost.set())
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(lambda *_: lost.set())
        await channel.set_qos(prefetch_count=PREFETCH, timeout=ANSWER_SECONDS_MAX)
        await declare(channel, [self._queue])
        queue = await channel.get_queue(self._queue.name, ensure=False)

        async def take(incoming: AbstractIncomingMessage) -> None:
            task = asyncio.create_task(self._handle(channel, incoming))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)

        await queue.consume(take, timeout=ANSWER_SECONDS_MAX)

    async def _handle(self, channel: AbstractChannel, incoming: AbstractIncomingMessage) -> None:
        message = self._read(incoming)
        try:
            try:
                handler = self._handlers.get(message.type)
                if handler is None:
                    raise DeadLetter(f"nothing here handles {message.type}")
                await handle_until_done(handler, message)
            except DeadLetter as error:
                await self._bury(channel, incoming, str(error))
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await incoming.ack()
        except _AWAY as error:
            # Not acknowledged: the broker delivers it again, and handling it twice does no harm.
            log.warning("message left to the broker", message_id=message.id, reason=f"{type(error).__name__}: {error}")

    def _read(self, incoming: AbstractIncomingMessage) -> Message:
        """The message, its headers as text.

        The routing key says its type. A message that an operator moved here by the queue's name has lost that key,
        but still bears its type as a property.
        """
        routing_key = incoming.routing_key or ""
        type_ = routing_key if routing_key in self._handlers else incoming.type or routing_key
        headers = {name: str(value) for name, value in incoming.headers.items()}
        return Message(incoming.message_id or "", type_, incoming.body, headers)

    async def _bury(self, channel: AbstractChannel, incoming: AbstractIncomingMessage, reason: str) -> None:
        """Puts a copy with the reason into the dead-letter queue, confirmed, before the original is acknowledged."""
        copy = aio_pika.Message(
            incoming.body,
            headers={**incoming.headers, "x-reason": reason, "x-original-routing-key": incoming.routing_key or ""},
            content_type=incoming.content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=incoming.message_id,
            type=incoming.type,
            timestamp=incoming.timestamp,
        )
        await channel.default_exchange.publish(
            copy, self._queue.dead_letters, mandatory=True, timeout=ANSWER_SECONDS_MAX
        )

    async def _close_drained(self, connection: AbstractConnection | None) -> None:
        """Lets the messages in hand finish before their channel goes; a lost channel has nothing to wait for."""
        if self._in_hand and connection and not connection.is_closed:
            await asyncio.wait(self._in_hand, timeout=DRAIN_SECONDS_MAX)
        for task in self._in_hand:
            task.cancel()
        await _close(connection)


async def declare(channel: AbstractChannel, queues: Sequence[Queue]) -> None:
    """Declares the queues with their exchanges, bindings and dead-letter queues; can be repeated."""
    for queue in queues:
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
            },
            timeout=ANSWER_SECONDS_MAX,
        )
        for exchange_name, routing_key in queue.bindings:
            exchange = await channel.declare_exchange(
                exchange_name, ExchangeType.TOPIC, durable=True, timeout=ANSWER_SECONDS_MAX
            )
            await declared.bind(exchange, routing_key, timeout=ANSWER_SECONDS_MAX)


async def is_up(url: str) -> bool:
    """Whether a connection can be opened now."""
    try:
        await _close(await _connect(url))
    except _AWAY:
        return False
    return True


async def _connect(url: str) -> AbstractConnection:
    return await aio_pika.connect(url, timeout=ANSWER_SECONDS_MAX, client_properties={"product": "payments-ledger"})


async def _close(connection: AbstractConnection | None) -> None:
    if connection is None or connection.is_closed:
        return
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await connection.close()
    except _AWAY as error:
        log.debug("connection closed uncleanly", reason=str(error))


async def _publish(exchange: AbstractExchange, message: Message) -> Delivery:
    outgoing = aio_pika.Message(
        message.body,
        headers=dict(message.headers),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=message.id,
        type=message.type,
        timestamp=datetime.now(UTC),
    )
    try:
        await exchange.publish(outgoing, message.type, mandatory=True, timeout=ANSWER_SECONDS_MAX)
    except PublishError:
        return Delivery(Fate.UNROUTED, "no queue is bound for it")
    except DeliveryError as error:
        raise BrokerAway(f"the broker refused {message.type}: {error}") from error
    return Delivery(Fate.ROUTED)
