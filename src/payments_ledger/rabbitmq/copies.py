"""Copies of messages that go elsewhere: into a retry queue, among the dead letters, or back from there.

Each is confirmed where it goes before the original is acknowledged, and carries headers (marks) that say what it was.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, DeliveryMode, FieldValue
from pamqp import encode

from payments_ledger.messaging.handling import LATER_SECONDS
from payments_ledger.messaging.messages import Message
from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.connection import RESPONSE_SECONDS_MAX
from payments_ledger.rabbitmq.topology import declare_retry

# Headers that a message gets on its way around: what it was, how often it failed, and why it is dead.
ORIGINAL_ROUTING_KEY = "x-original-routing-key"
ORIGINAL_QUEUE = "x-original-queue"
ATTEMPTS = "x-attempts"
REASON = "x-reason"
DEAD_SINCE = "x-dead-since"
DEAD_LETTER_ID = "x-dead-letter-id"
MARKS = (ORIGINAL_ROUTING_KEY, ORIGINAL_QUEUE, ATTEMPTS, REASON, DEAD_SINCE, DEAD_LETTER_ID)
REASON_LENGTH_MAX = 500
# The broker's own marks, which a copy must not start with.
_BROKER_MARKS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
# Further queues that a sender asks for: a copy would go to them as well, even to the one it came from, for ever.
_SENDERS_QUEUES = ("CC", "BCC")
# All headers are in one frame, of at most 128 KiB. A copy with more than this would have no room for our marks.
HEADERS_BYTES_MAX = 64 * 1024


async def put_aside(
    channel: AbstractChannel, queue: Queue, incoming: AbstractIncomingMessage, message: Message
) -> None:
    """Puts a copy into the retry queue of `queue` that the number of its failures calls for."""
    seconds = LATER_SECONDS[min(message.failures, len(LATER_SECONDS) - 1)]
    await declare_retry(channel, queue, seconds)
    marks: dict[str, FieldValue] = {ORIGINAL_ROUTING_KEY: message.type, ATTEMPTS: message.failures + 1}
    await put(channel, queue.retry_name(seconds), copy_of(incoming, marks))


async def bury(
    channel: AbstractChannel, queue: Queue, incoming: AbstractIncomingMessage, message: Message, reason: str
) -> None:
    """Puts a copy with the reason into the dead-letter queue of `queue`."""
    marks: dict[str, FieldValue] = {
        ORIGINAL_ROUTING_KEY: message.type,
        ORIGINAL_QUEUE: queue.name,
        ATTEMPTS: message.failures + 1,
        # What a sender wrote may be quoted in the reason, and may be text that AMQP cannot carry.
        REASON: reason[:REASON_LENGTH_MAX].encode(errors="backslashreplace").decode(),
        DEAD_SINCE: datetime.now(UTC).isoformat(timespec="seconds"),
        DEAD_LETTER_ID: uuid4().hex,
    }
    await put(channel, queue.dead_letters, copy_of(incoming, marks))


async def put(channel: AbstractChannel, queue_name: str, message: aio_pika.Message) -> None:
    """Publishes to one queue; returns once the broker has confirmed that it is there."""
    await channel.default_exchange.publish(message, queue_name, mandatory=True, timeout=RESPONSE_SECONDS_MAX)


def copy_of(incoming: AbstractIncomingMessage, marks: Mapping[str, FieldValue]) -> aio_pika.Message:
    """The same message with its headers and `marks`, but without what the broker or we noted on it before.

    Headers that a sender can write and a client cannot send on are left out, too.
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
