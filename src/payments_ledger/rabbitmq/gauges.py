"""How much lies in the queues, as metrics. Imported by the worker alone: elsewhere the gauges would say nothing."""

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from aio_pika.abc import AbstractChannel, AbstractConnection
from prometheus_client import Gauge

from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import RESPONSE_SECONDS_MAX, UNREACHABLE, close, connect, unavailable
from payments_ledger.rabbitmq.topology import declare
from payments_ledger.telemetry.gauges import keep_measuring

QUEUE_MESSAGES = Gauge("ledger_queue_messages", "Messages ready in a queue", ["queue", "kind"])
QUEUE_CONSUMERS = Gauge("ledger_queue_consumers", "Consumers of a queue", ["queue", "kind"])


async def keep_measuring_queues(url: str, queues: Sequence[Queue]) -> NoReturn:
    """Measures the queues and their dead-letter queues again and again until cancelled."""
    gauges = QueueGauges(url, queues)
    try:
        await keep_measuring("broker", gauges.measure)
    finally:
        await gauges.close()


class QueueGauges:
    """Measures queues and their dead-letter queues, over a connection of its own."""

    def __init__(self, url: str, queues: Sequence[Queue]) -> None:
        self._url = url
        self._queues = queues
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def measure(self) -> None:
        """Raises BrokerUnavailable."""
        try:
            async with asyncio.timeout(RESPONSE_SECONDS_MAX * 2):
                channel = await self._ready_channel()
                for queue in self._queues:
                    await _measure(channel, queue.name, "work")
                    await _measure(channel, queue.dead_letters, "dead_letters")
        except UNREACHABLE as error:
            await self.close()
            raise unavailable(error) from error

    async def close(self) -> None:
        """Closes the connection; the next `measure` opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        await close(connection)

    async def _ready_channel(self) -> AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            await self.close()
            self._connection = await connect(self._url)
            # Asking for a queue that does not exist would end the channel.
            await declare(self._connection, self._queues)
            self._channel = await self._connection.channel()
        return self._channel


async def _measure(channel: AbstractChannel, name: str, kind: str) -> None:
    found = (await channel.declare_queue(name, passive=True, timeout=RESPONSE_SECONDS_MAX)).declaration_result
    QUEUE_MESSAGES.labels(name, kind).set(found.message_count or 0)
    QUEUE_CONSUMERS.labels(name, kind).set(found.consumer_count or 0)
