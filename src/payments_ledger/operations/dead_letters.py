"""Dead letters in the operator's hands: list the messages of the dead-letter queues, replay them or drop them.

With RABBITMQ_URL=memory:// there are no queues: what its handler refused is buried in the outbox, and read from there.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.commit.audit import AuditRecord, Origin, record_refusals
from payments_ledger.delivery.queries import OutboxEvent
from payments_ledger.messaging.subscription import Queue
from payments_ledger.operations import outbox
from payments_ledger.postgres.database import Database
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.queues import PAYMENTS_QUEUE, orders_queue, tenants_queue
from payments_ledger.rabbitmq import copies
from payments_ledger.rabbitmq.connection import connected
from payments_ledger.rabbitmq.topology import declare
from payments_ledger.validation.exact_json import parse_exact_json

# A list is for reading; the others show once these are dealt with.
LIST_LENGTH_MAX = 1000
# Looking at a message counts as a delivery, and RabbitMQ 4 drops it after 20: well before that it gets a new count.
LOOKS_MAX = 10
DELIVERY_COUNT = "x-delivery-count"
FIRST_DEATH_REASON = "x-first-death-reason"
OUTBOX = "outbox_events"

REPLAY_AUDIT_ACTION = "dead_letter.replay"
DROP_AUDIT_ACTION = "dead_letter.drop"
_TENANT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)

type Progress = Callable[[int, int], None]
"""Called with how many dead letters were read, and how many there are, whenever either changes."""


def _no_progress(done: int, total: int) -> None:
    """For a program, which shows no progress."""


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A dead letter as the operator sees it: `body` as text, `id` as the commands take it."""

    id: str
    queue: str
    routing_key: str
    reason: str
    attempts: int | None
    since: str | None
    message_id: str | None
    headers: dict[str, str]
    body: str

    @property
    def short_id(self) -> str:
        """Enough of the id to tell it from others; an event's begins with its time, so it is shown whole."""
        return self.id if self.queue == OUTBOX else self.id[:12]


def in_memory(settings: Settings) -> bool:
    """Whether the outbox itself holds what could not be handled."""
    return settings.rabbitmq_url.startswith(MEMORY_URL)


def queues_of(settings: Settings) -> list[Queue]:
    """Every queue that a worker may ever have consumed with these settings, whether it does so now or not."""
    return [PAYMENTS_QUEUE, orders_queue(settings), tenants_queue(settings)]


async def list_dead_letters(owner: Database, settings: Settings, *, limit: int = LIST_LENGTH_MAX) -> list[DeadMessage]:
    """The oldest dead letters of each queue, which stay where they are. Raises BrokerUnavailable or Unavailable."""
    if in_memory(settings):
        return [_of(event) for event in (await outbox.list_buried(owner))[:limit]]
    found: list[DeadMessage] = []

    async def look(letter: DeadMessage, _: "_Found") -> None:
        found.append(letter)

    await _for_each(settings, look, limit=limit)
    return found


async def replay_dead_letters(
    owner: Database,
    origin: Origin,
    settings: Settings,
    wanted: Callable[[DeadMessage], bool],
    progress: Progress = _no_progress,
) -> list[DeadMessage]:
    """Puts the wanted ones back into the queue they came from, confirmed there before they are removed here.

    Each leaves a row in the audit log. Can be repeated and interrupted: at worst a message is handled twice, which
    does no harm. Raises BrokerUnavailable or Unavailable.
    """
    if in_memory(settings):
        buried = [event for event in await outbox.list_buried(owner) if wanted(_of(event))]
        return [_of(event) for event in await outbox.retry(owner, origin, buried)]
    replayed: list[DeadMessage] = []

    audit = _auditing(owner, origin, REPLAY_AUDIT_ACTION)

    async def replay(letter: DeadMessage, found: _Found) -> None:
        if wanted(letter):
            await audit(letter)
            await declare(found.connection, [found.queue])
            marks = {copies.ORIGINAL_ROUTING_KEY: letter.routing_key} if letter.routing_key else {}
            await copies.put(found.channel, found.queue.name, copies.copy_of(found.incoming, marks))
            await found.incoming.ack()
            replayed.append(letter)

    await _for_each(settings, replay, progress=progress)
    return replayed


async def drop_dead_letters(
    owner: Database,
    origin: Origin,
    settings: Settings,
    wanted: Callable[[DeadMessage], bool],
    progress: Progress = _no_progress,
) -> list[DeadMessage]:
    """Removes the wanted ones for good, each with a row in the audit log. Raises BrokerUnavailable or Unavailable.

    What is buried in the outbox cannot be dropped.
    """
    dropped: list[DeadMessage] = []
    audit = _auditing(owner, origin, DROP_AUDIT_ACTION)

    async def drop(letter: DeadMessage, found: _Found) -> None:
        if wanted(letter):
            await audit(letter)
            await found.incoming.ack()
            dropped.append(letter)

    await _for_each(settings, drop, progress=progress)
    return dropped


def having_ids(ids: Sequence[str]) -> Callable[[DeadMessage], bool]:
    """Matches by id, or by the beginning of one."""
    return lambda letter: letter.id.startswith(tuple(ids))


def _auditing(owner: Database, origin: Origin, action: str) -> Callable[[DeadMessage], Awaitable[None]]:
    """Writes into the audit log what is about to be done to a dead letter, so that nothing is done unrecorded."""

    async def write(letter: DeadMessage) -> None:
        record = _audit(letter, origin, action)
        async with owner.transaction({record.tenant_id, EVERY_TENANT}) as conn:
            await record_refusals(conn, [record])

    return write


def _audit(letter: DeadMessage, origin: Origin, action: str) -> AuditRecord:
    detail = {
        "queue": letter.queue,
        "routing_key": letter.routing_key,
        "reason": letter.reason,
        "message_id": letter.message_id,
        "body_sha256": sha256(letter.body.encode()).hexdigest(),
    }
    # Anybody may have written the id, and PostgreSQL takes no NUL.
    return AuditRecord(_tenant_of(letter), origin, action, letter.id.replace("\0", ""), detail)


def _tenant_of(letter: DeadMessage) -> str:
    """The tenant that the message names, whether it exists or not; * if it names none."""
    claimed: Any = letter.headers.get("X-Tenant-Id")
    if claimed is None:
        try:
            content = parse_exact_json(letter.body.encode())
        except (ValueError, ArithmeticError):
            content = None
        if isinstance(content, dict):
            claimed = content.get("tenant_id", content.get("tenantId"))
    return claimed if isinstance(claimed, str) and _TENANT_ID.fullmatch(claimed) else EVERY_TENANT


@dataclass(frozen=True, slots=True)
class _Found:
    """A dead letter in its queue."""

    connection: AbstractConnection
    channel: AbstractChannel
    queue: Queue
    incoming: AbstractIncomingMessage


async def _for_each(
    settings: Settings,
    act: Callable[[DeadMessage, _Found], Awaitable[None]],
    *,
    limit: int | None = None,
    progress: Progress = _no_progress,
) -> None:
    """Shows each dead letter there is now to `act` once; what it does not acknowledge goes back in the end."""
    done = total = 0
    for queue in queues_of(settings):
        # A connection for each: closing it gives back what was not acknowledged.
        async with connected(settings.rabbitmq_url) as connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            try:
                declared = await channel.declare_queue(queue.dead_letters, passive=True)
            except ChannelNotFoundEntity:
                # The worker has never run with it.
                continue
            # Not "until it is empty": what is replayed may come right back.
            count = declared.declaration_result.message_count or 0
            total += count
            for _ in range(count if limit is None else min(count, limit)):
                progress(done, total)
                done += 1
                incoming = await declared.get(fail=False)
                if incoming is None:
                    break
                await act(_read(queue, incoming), _Found(connection, channel, queue, incoming))
                if not incoming.processed and _looks(incoming) >= LOOKS_MAX:
                    await copies.put(channel, queue.dead_letters, copies.copy_of(incoming, _own_marks(incoming)))
                    await incoming.ack()
            progress(done, total)


def _read(queue: Queue, incoming: AbstractIncomingMessage) -> DeadMessage:
    # How often it was read is not a part of the message.
    headers = {name: str(value) for name, value in incoming.headers.items() if name != DELIVERY_COUNT}
    attempts = incoming.headers.get(copies.ATTEMPTS)
    # A message that the broker itself put here bears none of our marks.
    fallback = sha256(incoming.body + (incoming.message_id or "").encode()).hexdigest()[:32]
    return DeadMessage(
        id=headers.get(copies.DEAD_LETTER_ID, fallback),
        queue=queue.name,
        routing_key=headers.get(copies.ORIGINAL_ROUTING_KEY) or incoming.type or _first_routing_key(incoming),
        reason=headers.get(copies.REASON) or f"put here by the broker: {headers.get(FIRST_DEATH_REASON, 'unknown')}",
        attempts=attempts if isinstance(attempts, int) else None,
        since=headers.get(copies.DEAD_SINCE),
        message_id=incoming.message_id,
        headers=headers,
        body=incoming.body.decode(errors="backslashreplace"),
    )


def _of(event: OutboxEvent) -> DeadMessage:
    """A buried event in the shape of a dead letter."""
    return DeadMessage(
        id=str(event.id),
        queue=OUTBOX,
        routing_key=event.event_type,
        reason=event.last_error or "",
        attempts=event.attempts,
        since=event.buried_at.isoformat(timespec="seconds") if event.buried_at else None,
        message_id=str(event.id),
        headers=event.headers,
        body=json.dumps(event.payload, ensure_ascii=False),
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
    marks = {name: incoming.headers[name] for name in copies.MARKS if name in incoming.headers}
    return {copies.ORIGINAL_ROUTING_KEY: _first_routing_key(incoming), **marks}
