"""Dead letters for the operator: what is in the dead-letter queues, and putting it back or dropping it."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from payments_ledger.platform import rabbitmq
from payments_ledger.platform.rabbitmq import Queue
from payments_ledger.platform.settings import Settings
from payments_ledger.worker import PAYMENTS_QUEUE, orders_queue, tenants_queue

# A list is for reading; what is behind it comes up once these are dealt with.
LIST_LENGTH_MAX = 1000
# Looking at a message counts as a delivery, and RabbitMQ 4 drops it after 20: well before that it gets a new count.
LOOKS_MAX = 10
DELIVERY_COUNT = "x-delivery-count"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`body` is shown as text; `id` is what the other commands take."""

    id: str
    queue: str
    routing_key: str
    reason: str
    attempts: int | None
    since: str | None
    message_id: str | None
    headers: dict[str, str]
    body: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def queues_of(settings: Settings) -> list[Queue]:
    """Every queue that a worker may ever have consumed with these settings, whether it does so now or not."""
    return [PAYMENTS_QUEUE, orders_queue(settings), tenants_queue(settings)]


async def list_dead_letters(settings: Settings, *, limit: int = LIST_LENGTH_MAX) -> list[DeadLetter]:
    """The oldest dead letters of each queue, which stay where they are."""
    found: list[DeadLetter] = []

    async def look(channel: AbstractChannel, queue: Queue, incoming: AbstractIncomingMessage) -> None:
        found.append(_read(queue, incoming))

    await _for_each(settings, look, limit=limit)
    return found


async def replay_dead_letters(settings: Settings, wanted: Callable[[DeadLetter], bool]) -> list[DeadLetter]:
    """Puts the wanted ones back into the queue they came from, confirmed there before they are taken away here.

    Can be repeated and interrupted: at worst a message is handled twice, which does no harm.
    """
    replayed: list[DeadLetter] = []

    async def replay(channel: AbstractChannel, queue: Queue, incoming: AbstractIncomingMessage) -> None:
        letter = _read(queue, incoming)
        if wanted(letter):
            await rabbitmq.declare(channel, [queue])
            marks = {rabbitmq.ORIGINAL_ROUTING_KEY: letter.routing_key} if letter.routing_key else {}
            await rabbitmq.put(channel, queue.name, rabbitmq.copy_of(incoming, marks))
            await incoming.ack()
            replayed.append(letter)

    await _for_each(settings, replay)
    return replayed


async def drop_dead_letters(settings: Settings, wanted: Callable[[DeadLetter], bool]) -> list[DeadLetter]:
    """Takes the wanted ones away for good."""
    dropped: list[DeadLetter] = []

    async def drop(channel: AbstractChannel, queue: Queue, incoming: AbstractIncomingMessage) -> None:
        letter = _read(queue, incoming)
        if wanted(letter):
            await incoming.ack()
            dropped.append(letter)

    await _for_each(settings, drop)
    return dropped


def having_ids(ids: Sequence[str]) -> Callable[[DeadLetter], bool]:
    """Matches by id, or by the beginning of one."""
    return lambda letter: letter.id.startswith(tuple(ids))


async def _for_each(settings: Settings, act: Any, *, limit: int | None = None) -> None:
    """Shows each dead letter there is now to `act` once; what it does not acknowledge goes back in the end."""
    for queue in queues_of(settings):
        async with _channel(settings.rabbitmq_url) as channel:
            try:
                declared = await channel.declare_queue(queue.dead_letters, passive=True)
            except ChannelNotFoundEntity:
                # The worker has never run with it.
                continue
            # Not "until it is empty": what is replayed may come right back.
            count = declared.declaration_result.message_count or 0
            for _ in range(count if limit is None else min(count, limit)):
                incoming = await declared.get(fail=False)
                if incoming is None:
                    break
                await act(channel, queue, incoming)
                if not incoming.processed and _looks(incoming) >= LOOKS_MAX:
                    await rabbitmq.put(channel, queue.dead_letters, rabbitmq.copy_of(incoming, _own_marks(incoming)))
                    await incoming.ack()


@asynccontextmanager
async def _channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel for one queue; closing it gives back what was not acknowledged."""
    async with rabbitmq.connected(url) as connection:
        yield await connection.channel(publisher_confirms=True, on_return_raises=True)


def _read(queue: Queue, incoming: AbstractIncomingMessage) -> DeadLetter:
    # How often somebody has looked is not a part of the message.
    headers = {name: str(value) for name, value in incoming.headers.items() if name != DELIVERY_COUNT}
    attempts = incoming.headers.get(rabbitmq.ATTEMPTS)
    # A message that the broker itself put here bears none of our marks.
    fallback = sha256(incoming.body + (incoming.message_id or "").encode()).hexdigest()[:32]
    return DeadLetter(
        id=headers.get(rabbitmq.DEAD_LETTER_ID, fallback),
        queue=queue.name,
        routing_key=headers.get(rabbitmq.ORIGINAL_ROUTING_KEY) or incoming.type or _first_routing_key(incoming),
        reason=headers.get(rabbitmq.REASON, "put here by the broker"),
        attempts=attempts if isinstance(attempts, int) else None,
        since=headers.get(rabbitmq.DEAD_SINCE),
        message_id=incoming.message_id,
        headers=headers,
        body=incoming.body.decode(errors="backslashreplace"),
    )


def _first_routing_key(incoming: AbstractIncomingMessage) -> str:
    """The key that the message had before the broker dead-lettered it (the oldest record in x-death)."""
    deaths = incoming.headers.get("x-death")
    oldest = deaths[-1] if isinstance(deaths, list) and deaths else None
    keys = oldest.get("routing-keys") if isinstance(oldest, dict) else None
    return str(keys[0]) if isinstance(keys, list) and keys else ""


def _looks(incoming: AbstractIncomingMessage) -> int:
    count = incoming.headers.get(DELIVERY_COUNT)
    return count if isinstance(count, int) else 0


def _own_marks(incoming: AbstractIncomingMessage) -> dict[str, Any]:
    marks = {name: incoming.headers[name] for name in rabbitmq.MARKS if name in incoming.headers}
    return {rabbitmq.ORIGINAL_ROUTING_KEY: _first_routing_key(incoming), **marks}
