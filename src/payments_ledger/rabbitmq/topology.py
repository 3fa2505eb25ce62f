"""The queues as RabbitMQ is to have them: each with its exchanges, bindings, dead letters and delivery limit."""

from collections.abc import Mapping, Sequence

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, ExchangeType, FieldValue
from aio_pika.exceptions import ChannelPreconditionFailed

from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import RESPONSE_SECONDS_MAX

log = structlog.get_logger(__name__)

# A message that the broker had to take back so often goes to the dead letters as it is: the last resort against one
# that ends its consumer each time. RabbitMQ 4 has the same default.
DELIVERIES_MAX = 20
# With these the broker keeps a message until the queue it moves to has confirmed it; the strategy needs the overflow
# policy.
_MOVED_AT_LEAST_ONCE: dict[str, FieldValue] = {
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
# A queue that was declared before there was a limit lacks these, and cannot be declared with them
# (docs/how-to/operations.md).
_DELIVERY_LIMIT: dict[str, FieldValue] = {"x-delivery-limit": DELIVERIES_MAX, **_MOVED_AT_LEAST_ONCE}


async def declare(connection: AbstractConnection, queues: Sequence[Queue]) -> None:
    """Declares the queues with their exchanges, bindings and dead-letter queues; can be repeated.

    A queue that an older version declared, without a delivery limit, is taken as it is.
    """
    for queue in queues:
        try:
            await _declare(connection, queue, _DELIVERY_LIMIT)
        except ChannelPreconditionFailed as error:
            if not any(name in str(error) for name in _DELIVERY_LIMIT):
                raise
            log.warning(
                "queue has no delivery limit, see docs/how-to/operations.md", queue=queue.name, reason=str(error)
            )
            await _declare(connection, queue, {})


async def _declare(connection: AbstractConnection, queue: Queue, arguments: Mapping[str, FieldValue]) -> None:
    """Declares it on a channel of its own, which a refusal ends."""
    channel = await connection.channel()
    await channel.declare_queue(
        queue.dead_letters, durable=True, arguments={"x-queue-type": "quorum"}, timeout=RESPONSE_SECONDS_MAX
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
        timeout=RESPONSE_SECONDS_MAX,
    )
    for exchange_name, routing_key in queue.bindings:
        exchange = await channel.declare_exchange(
            exchange_name, ExchangeType.TOPIC, durable=True, timeout=RESPONSE_SECONDS_MAX
        )
        await declared.bind(exchange, routing_key, timeout=RESPONSE_SECONDS_MAX)
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
            **_MOVED_AT_LEAST_ONCE,
        },
        timeout=RESPONSE_SECONDS_MAX,
    )
