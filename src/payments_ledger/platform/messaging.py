"""Messages and who carries them: the few lines behind which RabbitMQ and the in-process bus are the same."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import structlog
from prometheus_client import Counter

from payments_ledger.errors import Unavailable
from payments_ledger.platform.tracing import begin_trace

log = structlog.get_logger(__name__)

MESSAGES_HANDLED = Counter("ledger_messages_handled_total", "Messages taken from a queue", ["type", "outcome"])

# A handler that fails for a passing reason is tried again after these seconds; the last one is repeated.
RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0, 15.0, 30.0)
# A failure that nobody foresaw might pass, but a message that keeps causing one must not stay for ever.
UNFORESEEN_FAILURES_MAX = 5


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way: `id` is the event's id, `type` its routing key, `body` flat JSON."""

    id: str
    type: str
    body: bytes
    headers: Mapping[str, str]


class DeadLetter(Exception):
    """Raised by a handler for a message that can never succeed; its text is the reason."""


type Handler = Callable[[Message], Awaitable[None]]
"""Handles one message; returns once its effect is committed. Raises DeadLetter, or Unavailable to be called again."""


class Fate(Enum):
    """What became of a message that was published."""

    ROUTED = "routed"
    UNROUTED = "unrouted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    fate: Fate
    reason: str = ""


class BrokerAway(Exception):
    """The broker cannot be reached or does not answer; of the messages at hand any may have been delivered."""


class Publisher(Protocol):
    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        """What became of each message, once that is sure; raises BrokerAway."""
        ...

    async def close(self) -> None: ...


class MemoryBus:
    """The bus of the embedded mode: publishing hands the message to its handler and waits until that is done."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        return list(await asyncio.gather(*(self._deliver(message) for message in messages)))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _deliver(self, message: Message) -> Delivery:
        handler = self._handlers.get(message.type)
        if handler is None:
            return Delivery(Fate.UNROUTED)
        try:
            await handle_until_done(handler, message)
        except DeadLetter as error:
            return Delivery(Fate.REFUSED, str(error))
        return Delivery(Fate.ROUTED)


async def handle_until_done(handler: Handler, message: Message) -> None:
    """Calls the handler, again and again with growing pauses while it fails in passing; raises DeadLetter."""
    begin_trace(message.headers.get("X-Correlation-Id"), message.headers.get("traceparent"))
    failures = unforeseen = 0
    while True:
        try:
            await handler(message)
        except DeadLetter as error:
            MESSAGES_HANDLED.labels(message.type, "dead_letter").inc()
            log.error("message refused", message_id=message.id, type=message.type, reason=str(error))
            raise
        except Unavailable as error:
            MESSAGES_HANDLED.labels(message.type, "retry").inc()
            log.warning("message waits", message_id=message.id, type=message.type, reason=str(error))
        except Exception as error:
            unforeseen += 1
            MESSAGES_HANDLED.labels(message.type, "failure").inc()
            log.exception("message failed", message_id=message.id, type=message.type)
            if unforeseen >= UNFORESEEN_FAILURES_MAX:
                raise DeadLetter(f"failed {unforeseen} times: {type(error).__name__}") from error
        else:
            MESSAGES_HANDLED.labels(message.type, "done").inc()
            return
        await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        failures += 1
