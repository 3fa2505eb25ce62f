"""The relay: publishes what is in the outbox, at least once and in order within a payment."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import structlog
from prometheus_client import Counter

from payments_ledger.delivery import queries
from payments_ledger.delivery.queries import DueEvent
from payments_ledger.errors import Unavailable
from payments_ledger.messaging.messages import BrokerUnavailable, Message
from payments_ledger.messaging.publisher import Fate, Publisher
from payments_ledger.postgres.database import Database
from payments_ledger.process.failpoints import Place, failpoint
from payments_ledger.telemetry.tracing import trace_id_of, usable_traceparent

log = structlog.get_logger(__name__)

EVENTS_RELAYED = Counter("ledger_outbox_relayed_total", "Outbox events by what became of them", ["type", "outcome"])

BATCH_SIZE_MAX = 200
# How long a new event can lie in an idle outbox. Forty small queries a second cost about a hundredth of a core.
POLL_SECONDS = 0.025
# While events keep coming, those of so long share a step: its transaction costs as much as ten of them. Hand-optimised:
# with two changes in rabbitmq/publisher.py the worker's time for a payment went from 2,276 µs to 1,691 (ADR 34). It may
# be deleted where events are pushed instead of polled.
GATHER_SECONDS = 0.008
# An event that is needed and reaches no queue is tried again after 1, 2, 4 … seconds.
POSTPONE_SECONDS_MAX = 60.0
# Another relay takes over what this one leaves in the outbox, so its shutdown need not wait for all of it.
FLUSH_SECONDS_MAX = 5.0
# Longer than the publisher waits for the broker.
STEP_SECONDS_MAX = 12.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class Relay:
    """Moves events from the outbox to the publisher; several relays may run, each claims its own."""

    def __init__(self, database: Database, publisher: Publisher, *, is_needed: Callable[[DueEvent], bool]) -> None:
        """`is_needed` says whether an event must reach a queue; any other that reaches no queue counts as published."""
        self._database = database
        self._publisher = publisher
        self._is_needed = is_needed

    async def run(self) -> None:
        """Relays until cancelled, then finishes its step; waits while the database or the broker is unavailable."""
        failures = 0
        while True:
            try:
                relayed = await _to_its_end(self.step())
                failures = 0
            except (BrokerUnavailable, Unavailable, psycopg.Error) as error:
                log.warning("relay waits", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            except Exception:
                # Settling goes on, as it would not if this ended the worker.
                log.exception("relay failed")
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if relayed < BATCH_SIZE_MAX:
                await asyncio.sleep(GATHER_SECONDS if relayed else POLL_SECONDS)

    async def flush(self) -> None:
        """Relays what is due now, within FLUSH_SECONDS_MAX; the rest is for the next relay."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS_MAX):
                while await self.step():
                    pass
        except (TimeoutError, BrokerUnavailable, Unavailable, psycopg.Error) as error:
            log.warning("events left to the next relay", reason=f"{type(error).__name__}: {error}")

    async def step(self) -> int:
        """One transaction: claim, publish with confirm, mark; returns how many events were claimed."""
        async with self._database.transaction() as conn:
            events = await queries.claim_due_events(conn, BATCH_SIZE_MAX)
            if not events:
                return 0
            await failpoint(Place.RELAY_BEFORE_PUBLISH)
            deliveries = await self._publisher.publish([self._message(event) for event in events])
            await failpoint(Place.RELAY_AFTER_CONFIRM)
            done: list[DueEvent] = []
            for event, delivery in zip(events, deliveries, strict=True):
                outcome = delivery.fate.value
                if delivery.fate is Fate.REFUSED:
                    outcome = "buried"
                    await queries.bury(conn, event, reason=delivery.reason)
                elif delivery.fate is Fate.FAILED or (delivery.fate is Fate.UNROUTED and self._is_needed(event)):
                    outcome = "postponed"
                    seconds = min(2.0**event.attempts, POSTPONE_SECONDS_MAX)
                    log.error(
                        "event reached no queue",
                        **_ids(event),
                        type=event.event_type,
                        reason=delivery.reason,
                    )
                    await queries.postpone(conn, event, seconds=seconds, reason=delivery.reason)
                else:
                    done.append(event)
                    if log.is_enabled_for(logging.DEBUG):
                        log.debug("event published", **_ids(event), type=event.event_type, outcome=outcome)
                EVENTS_RELAYED.labels(event.event_type, outcome).inc()
            if done:
                await queries.mark_published(conn, done)
            await failpoint(Place.RELAY_AFTER_MARK)
        return len(events)

    def _message(self, event: DueEvent) -> Message:
        body = event.payload.encode()
        return Message(str(event.id), event.event_type, body, event.headers, is_needed=self._is_needed(event))


async def _to_its_end(step: Coroutine[Any, Any, int]) -> int:
    """As await does, but a step that has begun is finished: what it has published is then marked, not sent again."""
    task = asyncio.create_task(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=STEP_SECONDS_MAX)
        task.cancel()
        if task.done() and not task.cancelled() and (error := task.exception()):
            log.warning("the last step failed", reason=f"{type(error).__name__}: {error}")
        raise


def _ids(event: DueEvent) -> dict[str, str | None]:
    """The ids by which a log line is found: those of the request that caused the event."""
    traceparent = usable_traceparent(event.headers.get("traceparent"))
    ids = {"event_id": str(event.id), "correlation_id": event.headers.get("X-Correlation-Id")}
    return {**ids, "trace_id": trace_id_of(traceparent)} if traceparent else ids
