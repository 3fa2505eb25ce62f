"""Consuming from RabbitMQ: a message is acknowledged once its handler is done, or once its copy is elsewhere."""

import asyncio
from collections.abc import Mapping

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ConnectionInternalError
from prometheus_client import Counter, Gauge

from payments_ledger.messaging.handling import ATTEMPTS_MAX, find_handler, handle
from payments_ledger.messaging.messages import DeadLetter, Handler, Later, Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.process.failpoints import Place, failpoint
from payments_ledger.rabbitmq.connection import RESPONSE_SECONDS_MAX, UNREACHABLE, close, connect
from payments_ledger.rabbitmq.copies import ATTEMPTS, ORIGINAL_ROUTING_KEY, bury, put_aside
from payments_ledger.rabbitmq.topology import declare

log = structlog.get_logger(__name__)

MESSAGES_IN_HAND = Gauge("ledger_messages_in_hand", "Messages taken from a queue and not yet handled", ["queue"])
BROKER_ERRORS = Counter(
    "ledger_queue_internal_errors_total", "Attempts to consume a queue that the broker answered with 541", ["queue"]
)

RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
# Twice a batch: while one batch is in the database, the next is already here.
PREFETCH = 400
# After a connection that was lost before anything was acknowledged, messages are taken one by one for this long: if
# one of them ends each connection, the broker counts the deliveries of that one alone.
CAREFUL_SECONDS = 10.0
DRAIN_SECONDS_MAX = 10.0


class RabbitConsumer:
    """Consumes one queue on a connection of its own, and reconnects for as long as it runs."""

    def __init__(self, url: str, queue: Queue, handlers: Mapping[str, Handler]) -> None:
        self._url = url
        self._queue = queue
        self._handlers = handlers
        self._in_hand: set[asyncio.Task[None]] = set()
        MESSAGES_IN_HAND.labels(queue.name).set_function(lambda: len(self._in_hand))
        self._internal_errors = BROKER_ERRORS.labels(queue.name)
        self._is_accepting = True
        # Whether a message was acknowledged since the connection was opened.
        self._progresses = False

    async def run(self) -> None:
        """Consumes until cancelled; messages in flight then are finished, within a limit, and acknowledged."""
        failures = 0
        is_careful = False
        while True:
            connection: AbstractConnection | None = None
            is_lost = True
            try:
                self._progresses = False
                connection = await connect(self._url)
                lost = await self._consume(connection, prefetch=1 if is_careful else PREFETCH)
                log.info("consuming", queue=self._queue.name, one_by_one=is_careful)
                is_lost = await _is_set_within(lost, CAREFUL_SECONDS if is_careful else None)
                if is_lost:
                    log.warning("broker lost", queue=self._queue.name)
            except UNREACHABLE as error:
                if isinstance(error, ConnectionInternalError):
                    self._internal_errors.inc()
                log.warning("broker unavailable", queue=self._queue.name, reason=f"{type(error).__name__}: {error}")
            finally:
                await self._close_drained(connection)
            is_careful = is_lost and (is_careful or (connection is not None and not self._progresses))
            # Being connected is no progress: a message might end each connection.
            failures = failures if is_lost and not self._progresses else 0
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _consume(self, connection: AbstractConnection, prefetch: int) -> asyncio.Event:
        """Starts consuming; the event is set when the connection or its channel was lost."""
        lost = asyncio.Event()
        async with asyncio.timeout(RESPONSE_SECONDS_MAX * 2):
            await self._begin(connection, prefetch, lost)
        return lost

    async def _begin(self, connection: AbstractConnection, prefetch: int, lost: asyncio.Event) -> None:
        connection.close_callbacks.add(lambda *_: lost.set())
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(lambda *_: lost.set())
        # A queue that is deleted cancels its consumers, and leaves their channel open.
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: lost.set())
        await channel.set_qos(prefetch_count=prefetch, timeout=RESPONSE_SECONDS_MAX)
        await declare(connection, [self._queue])
        queue = await channel.get_queue(self._queue.name, ensure=False)
        self._is_accepting = True

        async def accept(incoming: AbstractIncomingMessage) -> None:
            if not self._is_accepting:
                # It arrives while the others are finished; the broker delivers it again when the channel closes.
                return
            task = asyncio.create_task(self._handle(channel, incoming))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)

        await queue.consume(accept, timeout=RESPONSE_SECONDS_MAX)

    async def _handle(self, channel: AbstractChannel, incoming: AbstractIncomingMessage) -> None:
        message = self._read(incoming)
        try:
            # What is put elsewhere is confirmed there before it is acknowledged here.
            await failpoint(Place.CONSUMER_BEFORE_HANDLE)
            try:
                await handle(find_handler(self._handlers, message.type), message)
            except Later:
                await put_aside(channel, self._queue, incoming, message)
                await failpoint(Place.CONSUMER_AFTER_COPY)
            except DeadLetter as error:
                await bury(channel, self._queue, incoming, message, str(error))
                await failpoint(Place.CONSUMER_AFTER_COPY)
            await failpoint(Place.CONSUMER_BEFORE_ACK)
            async with asyncio.timeout(RESPONSE_SECONDS_MAX):
                await incoming.ack()
            self._progresses = True
            await failpoint(Place.CONSUMER_AFTER_ACK)
        except UNREACHABLE as error:
            # Not acknowledged: the broker delivers it again once the channel is closed, which makes us reconnect.
            # Handling a message twice does no harm.
            log.warning("message not acknowledged", message_id=message.id, reason=f"{type(error).__name__}: {error}")
            await close(channel)
        except Exception:
            # Nobody foresaw this one either, and a message that is never acknowledged would stay with us for ever.
            log.exception("message not acknowledged", message_id=message.id)
            await close(channel)

    def _read(self, incoming: AbstractIncomingMessage) -> Message:
        """The message, its headers as text.

        The routing key is its type. A message that comes back under the queue's name (from a retry queue, or replayed
        by an operator) has lost that key, but carries it in a header, or its type as a property.
        """
        headers = {name: str(value) for name, value in incoming.headers.items()}
        type_ = incoming.routing_key or ""
        if type_ == self._queue.name:
            type_ = headers.get(ORIGINAL_ROUTING_KEY) or incoming.type or type_
        attempts = incoming.headers.get(ATTEMPTS)
        # Anybody can write the header, and any number into it.
        failures = min(max(attempts, 0), ATTEMPTS_MAX - 1) if isinstance(attempts, int) else 0
        return Message(incoming.message_id or "", type_, incoming.body, headers, failures)

    async def _close_drained(self, connection: AbstractConnection | None) -> None:
        """Lets messages in flight finish before their channel closes; a lost channel has nothing to wait for."""
        self._is_accepting = False
        if self._in_hand and connection and not connection.is_closed:
            await asyncio.wait(self._in_hand, timeout=DRAIN_SECONDS_MAX)
        for task in self._in_hand:
            task.cancel()
        await close(connection)


async def _is_set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
