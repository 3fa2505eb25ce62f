"""The SQL of the relay, which claims what is due and marks what became of it, and of the operator, who looks on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from payments_ledger.postgres.database import Connection

# An outbox beyond this is in such trouble that it need not be counted to the end, which would only add to it.
BACKLOG_COUNTED_MAX = 20_000


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to publish; `attempts` counts those that failed."""

    tenant_id: str
    id: UUID
    event_type: str
    aggregate_id: UUID
    sequence: int
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
        SELECT tenant_id, id, event_type, aggregate_id, sequence, payload::text, headers,
               payload->>'order_id' AS order_id, attempts
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


async def unfollowed_since(
    conn: Connection, event_type: str, since: datetime, unless: Mapping[str, str]
) -> list[PublishedEvent]:
    """Published events of the type, recorded since then, after which nothing happened to their aggregate.

    Not those whose body says all of `unless`.
    """
    cursor = conn.cursor(row_factory=class_row(PublishedEvent))
    await cursor.execute(
        """
        SELECT tenant_id, id, created_at, published_at, attempts
        FROM outbox_events AS published
        WHERE event_type = %s AND created_at >= %s AND published_at IS NOT NULL
          AND (%s::jsonb = '{}' OR NOT payload::jsonb @> %s::jsonb)
          AND NOT EXISTS (
              SELECT FROM outbox_events AS later
              WHERE later.tenant_id = published.tenant_id AND later.aggregate_id = published.aggregate_id
                AND later.sequence > published.sequence)
        """,
        [event_type, since, Jsonb(unless), Jsonb(unless)],
    )
    return await cursor.fetchall()


async def publish_again(conn: Connection, events: Sequence[PublishedEvent]) -> None:
    """Makes events due again, unless another worker has done so since they were read."""
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
    """Counts the attempt as well: these events are not due again."""
    await conn.execute(
        """
        UPDATE outbox_events SET published_at = clock_timestamp(), attempts = attempts + 1
        FROM unnest(%s::text[], %s::uuid[], %s::integer[]) AS done (tenant_id, aggregate_id, sequence)
        WHERE outbox_events.tenant_id = done.tenant_id AND outbox_events.aggregate_id = done.aggregate_id
          AND outbox_events.sequence = done.sequence
        """,
        [
            [event.tenant_id for event in events],
            [event.aggregate_id for event in events],
            [event.sequence for event in events],
        ],
    )


async def postpone(conn: Connection, event: DueEvent, *, seconds: float, reason: str) -> None:
    """Counts the attempt, and makes the event due again in `seconds` from now, by the database's clock."""
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
    """What lies in the outbox: events to publish, those of them that failed before, the oldest's age, buried ones."""

    pending: int
    failing: int
    oldest_seconds: float
    buried: int


async def measure_backlog(conn: Connection, limit: int) -> Backlog:
    """Looks at no more than the `limit` events that are due first: more are not counted, as they do not matter."""
    cursor = conn.cursor(row_factory=class_row(Backlog))
    await cursor.execute(
        """
        SELECT count(*) AS pending,
               count(*) FILTER (WHERE attempts > 0) AS failing,
               coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_seconds,
               (SELECT count(*)
                FROM (SELECT FROM outbox_events WHERE buried_at IS NOT NULL LIMIT %(limit)s) AS buried) AS buried
        FROM (
            SELECT created_at, attempts
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


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event as an operator sees it; `state` is published, buried, failing (it was tried) or pending."""

    tenant_id: str
    id: UUID
    event_type: str
    aggregate_id: UUID
    sequence: int
    payload: dict[str, Any]
    headers: dict[str, str]
    created_at: datetime
    attempts: int
    next_attempt_at: datetime
    last_error: str | None
    buried_at: datetime | None
    state: str


_EVENT = sql.SQL(
    """
    tenant_id, id, event_type, aggregate_id, sequence, payload, headers, created_at, attempts, next_attempt_at,
    last_error, buried_at,
    CASE WHEN published_at IS NOT NULL THEN 'published' WHEN buried_at IS NOT NULL THEN 'buried'
         WHEN attempts > 0 THEN 'failing' ELSE 'pending' END AS state
    """
)


async def list_waiting_events(
    conn: Connection, *, state: str | None = None, tenant_id: str | None = None, limit: int
) -> list[OutboxEvent]:
    """The oldest events that are not published, of the tenants that the role may see; `state` as in OutboxEvent."""
    cursor = conn.cursor(row_factory=class_row(OutboxEvent))
    await cursor.execute(
        # Two halves, each with an index of its own: what is published, nearly all there is, is never looked at.
        sql.SQL(
            """
            SELECT * FROM (
                SELECT {event} FROM outbox_events WHERE published_at IS NULL AND buried_at IS NULL
                UNION ALL
                SELECT {event} FROM outbox_events WHERE published_at IS NULL AND buried_at IS NOT NULL
            ) AS waiting
            WHERE (%(state)s::text IS NULL OR state = %(state)s)
              AND (%(tenant)s::text IS NULL OR waiting.tenant_id = %(tenant)s)
            ORDER BY created_at, id
            LIMIT %(limit)s
            """
        ).format(event=_EVENT),
        {"state": state, "tenant": tenant_id, "limit": limit},
    )
    return await cursor.fetchall()


async def find_events(conn: Connection, *, ids: Collection[UUID], aggregate_id: UUID | None) -> list[OutboxEvent]:
    """The events with these ids, and those of the aggregate, in order; published ones too."""
    cursor = conn.cursor(row_factory=class_row(OutboxEvent))
    await cursor.execute(
        # Tenant by tenant, since every index leads with the tenant.
        sql.SQL(
            """
            SELECT found.*
            FROM tenants CROSS JOIN LATERAL (
                SELECT {event} FROM outbox_events
                WHERE outbox_events.tenant_id = tenants.tenant_id
                  AND (id = ANY (%(ids)s) OR aggregate_id = %(aggregate_id)s)
            ) AS found
            ORDER BY aggregate_id, sequence
            """
        ).format(event=_EVENT),
        {"ids": list(ids), "aggregate_id": aggregate_id},
    )
    return await cursor.fetchall()


async def find_events_after(
    conn: Connection,
    *,
    after: UUID,
    since: datetime,
    seen: Collection[UUID],
    tenant_id: str | None,
    event_types: Collection[str],
    limit: int,
) -> list[OutboxEvent]:
    """The first events whose id is above `after`, recorded from `since` on, and not among those `seen`.

    Ids begin with their time, so each tenant's newest are one stretch of its index.
    """
    cursor = conn.cursor(row_factory=class_row(OutboxEvent))
    await cursor.execute(
        sql.SQL(
            """
            SELECT found.*
            FROM tenants CROSS JOIN LATERAL (
                SELECT {event} FROM outbox_events
                WHERE outbox_events.tenant_id = tenants.tenant_id AND id > %(after)s
                  AND created_at >= %(since)s AND id <> ALL (%(seen)s::uuid[])
                  AND (cardinality(%(types)s::text[]) = 0 OR event_type = ANY (%(types)s::text[]))
                ORDER BY id
                LIMIT %(limit)s
            ) AS found
            WHERE %(tenant)s::text IS NULL OR tenants.tenant_id = %(tenant)s
            ORDER BY id
            LIMIT %(limit)s
            """
        ).format(event=_EVENT),
        {
            "after": after,
            "since": since,
            "seen": list(seen),
            "types": list(event_types),
            "tenant": tenant_id,
            "limit": limit,
        },
        # Only a plan made for these very values looks the seen ones up in a hash table.
        prepare=False,
    )
    return await cursor.fetchall()


async def make_due(conn: Connection, events: Sequence[OutboxEvent], *, again: bool) -> set[UUID]:
    """Has the events published as if for the first time; with `again` also those that were published before.

    Returns the ids of those that are due now.
    """
    cursor = await conn.execute(
        """
        UPDATE outbox_events
        SET attempts = 0, next_attempt_at = now(), last_error = NULL, buried_at = NULL, published_at = NULL
        FROM unnest(%s::text[], %s::uuid[]) AS chosen (tenant_id, id)
        WHERE outbox_events.tenant_id = chosen.tenant_id AND outbox_events.id = chosen.id
          AND (%s OR published_at IS NULL)
        RETURNING outbox_events.id
        """,
        [[event.tenant_id for event in events], [event.id for event in events], again],
    )
    return {event_id for (event_id,) in await cursor.fetchall()}
