"""The SQL of the feed: appending to the log what nothing can come before any more, and reading it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from payments_ledger.feed.event import LoggedEvent
from payments_ledger.feed.patterns import Patterns
from payments_ledger.postgres.database import Connection

# Any number, as long as nothing else in the database uses it: of several workers only one appends.
LOG_LOCK = 7_203_811_409

# A page looks at so many events at most; one that wants few types goes on from there. Some 10 ms.
LOOKED_AT_MAX = 2000


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the log reaches; `ended_below`: every transaction below it has ended."""

    written_below: int
    ended_below: int
    older_tenant: str | None
    older_aggregate: UUID | None
    older_sequence: int | None


async def take_reach(conn: Connection) -> Reach | None:
    """For this transaction alone; None while another worker has it (as the relay's role).

    By an advisory lock: locking the row would use up a transaction's number each time, and nobody would ever be done.
    """
    cursor = conn.cursor(row_factory=class_row(Reach))
    await cursor.execute(
        """
        SELECT written_below, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ended_below,
               older_tenant, older_aggregate, older_sequence
        FROM event_log_reach
        WHERE pg_try_advisory_xact_lock(%s)
        """,
        [LOG_LOCK],
    )
    return await cursor.fetchone()


async def append_written(conn: Connection, first: int, below: int) -> int:
    """Appends the events that transactions from `first` to before `below` wrote; returns how many.

    In the order of their time, and of their sequence within an aggregate: a transaction that began before another may
    have written after it.
    """
    cursor = await conn.execute(
        """
        WITH fresh AS MATERIALIZED (
            SELECT tenant_id, id, event_type, aggregate_id, sequence, created_at,
                   max(created_at) OVER (PARTITION BY tenant_id, aggregate_id ORDER BY sequence) AS at
            FROM outbox_events
            WHERE written_by >= %s AND written_by < %s
        ), heads AS (
            INSERT INTO event_log_heads AS head (tenant_id, last_position)
            SELECT tenant_id, count(*) FROM fresh GROUP BY tenant_id ORDER BY tenant_id
            ON CONFLICT (tenant_id) DO UPDATE SET last_position = head.last_position + EXCLUDED.last_position
            RETURNING tenant_id, last_position
        ), appended AS (
            INSERT INTO event_log (tenant_id, position, event_id, event_type, aggregate_id, sequence, created_at)
            SELECT tenant_id,
                   last_position - count(*) OVER (PARTITION BY tenant_id)
                   + row_number() OVER (PARTITION BY tenant_id ORDER BY at, aggregate_id, sequence),
                   id, event_type, aggregate_id, sequence, created_at
            FROM fresh
            JOIN heads USING (tenant_id)
            ORDER BY at, tenant_id, aggregate_id, sequence
            RETURNING 1
        )
        SELECT count(*) FROM appended
        """,
        [first, below],
    )
    [(appended,)] = await cursor.fetchall()
    return int(appended)


async def move_reach(conn: Connection, written_below: int) -> None:
    """Records that the log has every event of the transactions below it."""
    await conn.execute("UPDATE event_log_reach SET written_below = %s", [written_below])


async def append_older(conn: Connection, reach: Reach, limit: int) -> int:
    """Appends the next events from before there was a log, and records how far it came; returns how many.

    By tenant and aggregate: an aggregate's events keep their order, and aggregates that of their making.
    """
    cursor = await conn.execute(
        """
        WITH portion AS MATERIALIZED (
            SELECT tenant_id, id, event_type, aggregate_id, sequence, created_at
            FROM outbox_events
            WHERE written_by IS NULL AND (tenant_id, aggregate_id, sequence) > (%s, %s, %s)
            ORDER BY tenant_id, aggregate_id, sequence
            LIMIT %s
        ), heads AS (
            INSERT INTO event_log_heads AS head (tenant_id, last_position)
            SELECT tenant_id, count(*) FROM portion GROUP BY tenant_id ORDER BY tenant_id
            ON CONFLICT (tenant_id) DO UPDATE SET last_position = head.last_position + EXCLUDED.last_position
            RETURNING tenant_id, last_position
        ), appended AS (
            INSERT INTO event_log (tenant_id, position, event_id, event_type, aggregate_id, sequence, created_at)
            SELECT tenant_id,
                   last_position - count(*) OVER (PARTITION BY tenant_id)
                   + row_number() OVER (PARTITION BY tenant_id ORDER BY aggregate_id, sequence),
                   id, event_type, aggregate_id, sequence, created_at
            FROM portion
            JOIN heads USING (tenant_id)
            ORDER BY tenant_id, aggregate_id, sequence
            RETURNING 1
        ), last AS (
            SELECT tenant_id, aggregate_id, sequence
            FROM portion ORDER BY tenant_id DESC, aggregate_id DESC, sequence DESC LIMIT 1
        ), moved AS (
            UPDATE event_log_reach
            SET older_tenant = (SELECT tenant_id FROM last), older_aggregate = (SELECT aggregate_id FROM last),
                older_sequence = (SELECT sequence FROM last)
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM appended), (SELECT count(*) FROM moved)
        """,
        [reach.older_tenant, reach.older_aggregate, reach.older_sequence, limit],
    )
    [(appended, _)] = await cursor.fetchall()
    return int(appended)


async def last_positions(conn: Connection, tenant_ids: Collection[str]) -> dict[str, int]:
    """The position of the newest event of each of the tenants that has any."""
    cursor = await conn.execute(
        "SELECT tenant_id, last_position FROM event_log_heads WHERE tenant_id = ANY (%s)", [list(tenant_ids)]
    )
    return dict(await cursor.fetchall())


async def first_event(conn: Connection, tenant_id: str) -> tuple[int, UUID] | None:
    """Position and id of the oldest event that is kept; None if there is none."""
    cursor = await conn.execute(
        "SELECT position, event_id FROM event_log WHERE tenant_id = %s ORDER BY position LIMIT 1", [tenant_id]
    )
    return await cursor.fetchone()


async def find_position(conn: Connection, tenant_id: str, event_id: UUID) -> int | None:
    """None if the event is not in the tenant's log."""
    cursor = await conn.execute(
        "SELECT position FROM event_log WHERE tenant_id = %s AND event_id = %s", [tenant_id, event_id]
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def find_event(conn: Connection, tenant_id: str, event_id: UUID) -> LoggedEvent | None:
    """None if the event is not in the tenant's log."""
    cursor = conn.cursor(row_factory=class_row(LoggedEvent))
    await cursor.execute(
        """
        SELECT log.tenant_id, log.position, log.place, event.id, event.event_type AS type, event.aggregate_id,
               event.sequence, event.headers->>'X-Correlation-Id' AS correlation_id, event.created_at, event.payload
        FROM event_log AS log
        JOIN outbox_events AS event
          ON event.tenant_id = log.tenant_id AND event.aggregate_id = log.aggregate_id
         AND event.sequence = log.sequence
        WHERE log.tenant_id = %s AND log.event_id = %s
        """,
        [tenant_id, event_id],
    )
    return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of those that were looked at; id and position of the last of these, None if there was none."""

    events: Sequence[LoggedEvent]
    last_id: UUID | None
    last_position: int | None
    is_end: bool


NOTHING = Found((), None, None, is_end=True)


async def read_events(
    conn: Connection,
    tenant_id: str,
    *,
    after: int,
    wanted: Patterns,
    limit: int,
) -> Found:
    """Up to `limit` events after a position, oldest first, among the LOOKED_AT_MAX that follow it."""
    cursor = conn.cursor(row_factory=class_row(_Row))
    await cursor.execute(
        """
        WITH looked_at AS (
            SELECT * FROM event_log
            WHERE tenant_id = %(tenant_id)s AND position > %(after)s
            ORDER BY position
            LIMIT %(looked_at)s
        ), wanted AS (
            SELECT * FROM looked_at
            WHERE event_type = ANY (%(names)s::text[])
               OR EXISTS (SELECT FROM unnest(%(prefixes)s::text[]) AS prefix WHERE starts_with(event_type, prefix))
            ORDER BY position
            LIMIT %(limit)s
        ), ends AS (
            SELECT max(position) AS position, count(*) AS rows FROM looked_at
        )
        SELECT log.tenant_id, log.position, log.place, event.id, event.event_type AS type, event.aggregate_id,
               event.sequence, event.headers->>'X-Correlation-Id' AS correlation_id, event.created_at, event.payload,
               last.event_id AS last_id, last.position AS last_position, ends.rows AS looked_at
        FROM ends
        LEFT JOIN looked_at AS last ON last.position = ends.position
        LEFT JOIN wanted AS log ON true
        LEFT JOIN outbox_events AS event
          ON event.tenant_id = log.tenant_id AND event.aggregate_id = log.aggregate_id
         AND event.sequence = log.sequence
        ORDER BY log.position
        """,
        {
            "tenant_id": tenant_id,
            "after": after,
            "names": list(wanted.names),
            "prefixes": list(wanted.prefixes),
            "looked_at": LOOKED_AT_MAX,
            "limit": limit,
        },
    )
    rows = await cursor.fetchall()
    events = [row.event() for row in rows if row.id is not None]
    first = rows[0]
    return Found(events, first.last_id, first.last_position, is_end=first.looked_at < LOOKED_AT_MAX)


@dataclass(frozen=True, slots=True)
class _Row:
    tenant_id: str
    position: int
    place: int
    id: UUID | None
    type: str
    aggregate_id: UUID
    sequence: int
    correlation_id: str
    created_at: datetime
    payload: dict[str, object]
    last_id: UUID | None
    last_position: int | None
    looked_at: int

    def event(self) -> LoggedEvent:
        assert self.id is not None
        return LoggedEvent(
            self.tenant_id,
            self.position,
            self.place,
            self.id,
            self.type,
            self.aggregate_id,
            self.sequence,
            self.correlation_id,
            self.created_at,
            self.payload,
        )


async def read_events_of(
    conn: Connection, tenant_id: str, aggregate_id: UUID, *, after: int, wanted: Patterns, limit: int
) -> Found:
    """As read_events, of one aggregate: however long ago its events were."""
    cursor = conn.cursor(row_factory=class_row(LoggedEvent))
    await cursor.execute(
        """
        SELECT log.tenant_id, log.position, log.place, event.id, event.event_type AS type, event.aggregate_id,
               event.sequence, event.headers->>'X-Correlation-Id' AS correlation_id, event.created_at, event.payload
        FROM outbox_events AS event
        JOIN event_log AS log ON log.tenant_id = event.tenant_id AND log.event_id = event.id
        WHERE event.tenant_id = %(tenant_id)s AND event.aggregate_id = %(aggregate_id)s AND log.position > %(after)s
          AND (event.event_type = ANY (%(names)s::text[])
               OR EXISTS (SELECT FROM unnest(%(prefixes)s::text[]) AS prefix
                          WHERE starts_with(event.event_type, prefix)))
        ORDER BY log.position
        LIMIT %(limit)s
        """,
        {
            "tenant_id": tenant_id,
            "aggregate_id": aggregate_id,
            "after": after,
            "names": list(wanted.names),
            "prefixes": list(wanted.prefixes),
            "limit": limit,
        },
    )
    events = await cursor.fetchall()
    last = events[-1] if events else None
    return Found(events, last.id if last else None, last.position if last else None, is_end=len(events) < limit)


async def is_written(conn: Connection, tenant_id: str, event_id: UUID) -> bool:
    """Whether the tenant has such an event, in the log or not yet."""
    cursor = await conn.execute(
        "SELECT FROM outbox_events WHERE tenant_id = %s AND id = %s LIMIT 1", [tenant_id, event_id]
    )
    return bool(await cursor.fetchall())


async def delete_expired(conn: Connection, before: datetime, limit: int) -> int:
    """Deletes up to `limit` rows whose events were dropped from the outbox (as the relay's role); returns how many."""
    cursor = await conn.execute(
        """
        DELETE FROM event_log
        WHERE (tenant_id, position) IN (
            SELECT log.tenant_id, log.position
            FROM event_log AS log
            LEFT JOIN outbox_events AS event
              ON event.tenant_id = log.tenant_id AND event.aggregate_id = log.aggregate_id
             AND event.sequence = log.sequence
            WHERE log.created_at < %s AND event.id IS NULL
            LIMIT %s)
        RETURNING 1
        """,
        [before, limit],
    )
    return len(await cursor.fetchall())


async def measure_lag(conn: Connection) -> tuple[int, float]:
    """How many events wait for their position, at most 20,000, and for how long the oldest (as the relay's role)."""
    cursor = await conn.execute(
        """
        SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
        FROM (
            SELECT created_at FROM outbox_events
            WHERE written_by >= (SELECT written_below FROM event_log_reach)
            LIMIT 20000) AS waiting
        """
    )
    [(waiting, seconds)] = await cursor.fetchall()
    return int(waiting), float(seconds)
