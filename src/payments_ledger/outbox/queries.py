"""The SQL of the relay: claiming what is due and marking what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from payments_ledger.platform.postgres import Connection


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to publish; `attempts` counts those that failed."""

    tenant_id: str
    id: UUID
    event_type: str
    payload: str
    headers: dict[str, str]
    order_id: str | None
    attempts: int


async def claim_due_events(conn: Connection, limit: int) -> list[DueEvent]:
    """Due events, locked until the transaction ends; those that another relay holds are passed over.

    Of each aggregate only the first unpublished event is due: the others wait for it, so that order is kept.
    """
    cursor = conn.cursor(row_factory=class_row(DueEvent))
    await cursor.execute(
        """
        SELECT tenant_id, id, event_type, payload::text, headers, payload->>'order_id' AS order_id, attempts
        FROM outbox_events AS due
        WHERE published_at IS NULL AND buried_at IS NULL AND next_attempt_at <= now()
          AND NOT EXISTS (
              SELECT FROM outbox_events AS earlier
              WHERE earlier.tenant_id = due.tenant_id AND earlier.aggregate_id = due.aggregate_id
                AND earlier.sequence < due.sequence AND earlier.published_at IS NULL)
        ORDER BY next_attempt_at, id
        LIMIT %s
        FOR NO KEY UPDATE OF due SKIP LOCKED
        """,
        [limit],
    )
    return await cursor.fetchall()


async def mark_published(conn: Connection, events: Sequence[DueEvent]) -> None:
    await conn.execute(
        """
        UPDATE outbox_events SET published_at = clock_timestamp(), attempts = attempts + 1
        FROM unnest(%s::text[], %s::uuid[]) AS done (tenant_id, id)
        WHERE outbox_events.tenant_id = done.tenant_id AND outbox_events.id = done.id
        """,
        _columns(events),
    )


async def postpone(conn: Connection, event: DueEvent, *, seconds: float, reason: str) -> None:
    await conn.execute(
        """
        UPDATE outbox_events
        SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => %s), last_error = %s
        WHERE tenant_id = %s AND id = %s
        """,
        [seconds, reason, event.tenant_id, event.id],
    )


async def bury(conn: Connection, event: DueEvent, *, reason: str) -> None:
    """Sets the event aside, and with it the later ones of its aggregate, until an operator has looked."""
    await conn.execute(
        """
        UPDATE outbox_events SET attempts = attempts + 1, buried_at = clock_timestamp(), last_error = %s
        WHERE tenant_id = %s AND id = %s
        """,
        [reason, event.tenant_id, event.id],
    )


@dataclass(frozen=True, slots=True)
class Backlog:
    """What lies in the outbox: events to publish, how long the oldest of them has been there, and buried ones."""

    pending: int
    oldest_seconds: float
    buried: int


async def measure_backlog(conn: Connection, limit: int) -> Backlog:
    """Looks at no more than the `limit` events that are due first: more are not counted, as they do not matter."""
    cursor = conn.cursor(row_factory=class_row(Backlog))
    await cursor.execute(
        """
        SELECT count(*) AS pending,
               coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_seconds,
               (SELECT count(*)
                FROM (SELECT FROM outbox_events WHERE buried_at IS NOT NULL LIMIT %(limit)s) AS buried) AS buried
        FROM (
            SELECT created_at
            FROM outbox_events
            WHERE published_at IS NULL AND buried_at IS NULL
            ORDER BY next_attempt_at, id
            LIMIT %(limit)s) AS pending
        """,
        {"limit": limit},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


def _columns(events: Sequence[DueEvent]) -> list[list[Any]]:
    return [[event.tenant_id for event in events], [event.id for event in events]]
