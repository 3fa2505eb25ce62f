"""How a message is handled: tried again in place while the database is unavailable, else retried later or refused."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog
from prometheus_client import Counter

from payments_ledger.errors import Unavailable
from payments_ledger.messaging.messages import DeadLetter, Handler, Later, Message
from payments_ledger.telemetry.tracing import begin_trace, start_span

log = structlog.get_logger(__name__)

MESSAGES_HANDLED = Counter("ledger_messages_handled_total", "Messages taken from a queue", ["type", "outcome"])

# While the database is unavailable, a message is kept and tried again after these seconds; the last one is repeated.
# Those behind it could not be handled either.
RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0, 15.0, 30.0)
# A message that waits for something of its own is put aside for these seconds; the last one is repeated.
LATER_SECONDS = (1, 5, 30, 120, 600)
# With the delays above a message that keeps waiting is given up after 52 minutes.
ATTEMPTS_MAX = 10
# A failure that nobody foresaw might pass, but a message that keeps causing one must not stay for ever.
UNFORESEEN_FAILURES_MAX = 5
# Our messages and those that we know of have less than 2 KB. What is larger is not even parsed.
BODY_BYTES_MAX = 256 * 1024

# The key of a handler for messages of every type that has none of its own.
ANY_TYPE = "any"


@dataclass(frozen=True, slots=True)
class Route:
    """The handler of a message, if it has one, and what its type is called in the metrics."""

    name: str
    handler: Handler | None


def find_handler(handlers: Mapping[str, Handler], type_: str) -> Route:
    """A type that we do not know is "unknown" in the metrics: anybody may send any, and labels must stay few."""
    for name in (type_, ANY_TYPE):
        if handler := handlers.get(name):
            return Route(name, handler)
    return Route("unknown", None)


async def handle_until_done(route: Route, message: Message) -> None:
    """Handles the message where there is no retry queue: it waits here. Raises DeadLetter."""
    while True:
        try:
            await handle(route, message)
        except Later:
            await asyncio.sleep(RETRY_SECONDS[min(message.failures, len(RETRY_SECONDS) - 1)])
            message = replace(message, failures=message.failures + 1)
        else:
            return


async def handle(route: Route, message: Message) -> None:
    """Calls the handler, repeatedly while the database is unavailable.

    Raises DeadLetter, or Later a bounded number of times, also for a failure that nobody foresaw.
    """
    type_ = route.name
    traceparent = message.headers.get("traceparent")
    span = start_span(f"process {type_}", "CONSUMER", parent=traceparent)
    begin_trace(message.headers.get("X-Correlation-Id"), span.traceparent if span else traceparent)
    outcome: str | None = "failed"
    try:
        await _call_while_unavailable(route, message)
    except DeadLetter as error:
        MESSAGES_HANDLED.labels(type_, "dead_letter").inc()
        outcome = str(error)
        log.error("message refused", message_id=message.id, type=message.type, reason=str(error))
        raise
    except Later as error:
        MESSAGES_HANDLED.labels(type_, "retry").inc()
        outcome = str(error)
        log.warning("message put aside", message_id=message.id, type=message.type, reason=str(error))
        raise
    else:
        outcome = None
    finally:
        if span:
            span.end(attributes={"messaging.message.id": message.id}, error=outcome)
    MESSAGES_HANDLED.labels(type_, "done").inc()


async def _call_while_unavailable(route: Route, message: Message) -> None:
    if route.handler is None:
        raise DeadLetter(f"no handler for {message.type}")
    if len(message.body) > BODY_BYTES_MAX:
        raise DeadLetter(f"the body has {len(message.body)} bytes, {BODY_BYTES_MAX} are allowed")
    attempts = message.failures + 1
    waits = 0
    while True:
        try:
            return await route.handler(message)
        except DeadLetter:
            raise
        except Later as error:
            if attempts >= ATTEMPTS_MAX:
                raise DeadLetter(f"given up after {attempts} attempts: {error}") from None
            raise
        except Unavailable as error:
            MESSAGES_HANDLED.labels(route.name, "wait").inc()
            log.warning("message waits", message_id=message.id, type=message.type, reason=str(error))
        except Exception as error:
            log.exception("message failed", message_id=message.id, type=message.type)
            if attempts >= UNFORESEEN_FAILURES_MAX:
                raise DeadLetter(f"failed {attempts} times: {type(error).__name__}") from error
            raise Later(f"failed: {type(error).__name__}") from error
        await asyncio.sleep(RETRY_SECONDS[min(waits, len(RETRY_SECONDS) - 1)])
        waits += 1
