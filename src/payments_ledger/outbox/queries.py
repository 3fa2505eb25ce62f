"""The SQL of the relay: claiming what is due and marking what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """An event that the broker has confirmed, after so many attempts."""

    tenant_id: str
    id: UUID
    created_at: datetime
    published_at: datetime
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


async def unfollowed_since(conn: Connection, event_type: str, since: datetime) -> list[PublishedEvent]:
    """Published events of the type, recorded since then, after which nothing happened to their aggregate."""
    cursor = conn.cursor(row_factory=class_row(PublishedEvent))
    await cursor.execute(
        """
        SELECT tenant_id, id, created_at, published_at, attempts
        FROM outbox_events AS told
        WHERE event_type = %s AND created_at >= %s AND published_at IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM outbox_events AS later
              WHERE later.tenant_id = told.tenant_id AND later.aggregate_id = told.aggregate_id
                AND later.sequence > told.sequence)
        """,
        [event_type, since],
    )
    return await cursor.fetchall()


async def publish_again(conn: Connection, events: Sequence[PublishedEvent]) -> None:
    """Makes events due that nobody else has made due since they were read."""
    await conn.execute(
        """
        UPDATE outbox_events SET published_at = NULL, next_attempt_at = clock_timestamp()
        FROM unnest(%s::text[], %s::uuid[], %s::timestamptz[]) AS again (tenant_id, id, published_at)
        WHERE outbox_events.tenant_id = again.tenant_id AND outbox_events.id = again.id
          AND outbox_events.published_at = again.published_at
        """,
        [
            [event.tenant_id for event in events],
            [event.id for event in events],
            [event.published_at for event in events],
        ],
    )


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


def _columns(events: Sequence[DueEvent]) -> list[list[Any]]:
    return [[event.tenant_id for event in events], [event.id for event in events]]
