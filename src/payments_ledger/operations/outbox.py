"""The outbox in the operator's hands: list its unpublished events, follow what is recorded, publish events again."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from payments_ledger.commit.audit import AuditRecord, Origin, change, defer_audit
from payments_ledger.delivery import queries
from payments_ledger.delivery.queries import OutboxEvent
from payments_ledger.errors import Unavailable
from payments_ledger.operations.roles import as_relay, auditing
from payments_ledger.postgres.database import Database, transaction_time
from payments_ledger.tenants.queries import require_tenant

POLL_SECONDS = 0.25
PAGE_SIZE = 1000
# An event can be seen some seconds after the time in its id: its batch had to commit, or its process's clock is behind.
LATE_SECONDS_MAX = 15
RETRY_AUDIT_ACTION = "outbox.retry"
# So many in one transaction; the others are retried by the next command.
RETRIED_AT_ONCE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Followed:
    """What `follow` yields: the next event, or, while the database is unavailable, why."""

    event: OutboxEvent | None
    fault: str | None = None


async def list_unpublished(
    owner: Database, *, state: str | None, tenant_id: str | None, limit: int
) -> list[OutboxEvent]:
    """The oldest events that are not published. Raises UnknownTenant or Unavailable."""
    async with auditing(owner) as conn:
        if tenant_id is not None:
            await require_tenant(conn, tenant_id)
        return await queries.list_waiting_events(conn, state=state, tenant_id=tenant_id, limit=limit)


async def find_events(owner: Database, *, ids: Collection[UUID], aggregate_id: UUID | None) -> list[OutboxEvent]:
    """The events with these ids and of this aggregate. Raises Unavailable."""
    async with auditing(owner) as conn:
        return await queries.find_events(conn, ids=ids, aggregate_id=aggregate_id)


async def list_buried(owner: Database) -> list[OutboxEvent]:
    """Raises Unavailable."""
    return await list_unpublished(owner, state="buried", tenant_id=None, limit=RETRIED_AT_ONCE_MAX)


async def retry(
    owner: Database, origin: Origin, events: Sequence[OutboxEvent], *, again: bool = False
) -> list[OutboxEvent]:
    """Has the relay publish the events now, each with a row in the audit log; returns those that it will publish.

    `again` includes what was published before: its message goes out once more, with the same id. Raises Unavailable.
    """
    async with owner.transaction({event.tenant_id for event in events}) as conn:
        async with as_relay(conn):
            due = await queries.make_due(conn, events, again=again)
        retried = [event for event in events if event.id in due]
        defer_audit(conn, [_audit(event, origin) for event in retried])
    return retried


async def follow(
    owner: Database, *, since: datetime | None, tenant_id: str | None, event_types: Collection[str]
) -> AsyncGenerator[Followed]:
    """Every event that is recorded from `since` on (None: from now on), each once, as they become visible.

    Goes on until it is closed, over any loss of the database; raises UnknownTenant, or Unavailable if it cannot begin.
    """
    seen: set[UUID] = set()
    horizon: datetime | None = None
    while True:
        try:
            async with auditing(owner) as conn:
                now = await transaction_time(conn)
                if horizon is None and tenant_id is not None:
                    await require_tenant(conn, tenant_id)
                since = since or now
                after = _id_at((horizon or since) - timedelta(seconds=LATE_SECONDS_MAX))
                seen = {event_id for event_id in seen if event_id > after}
                events = await queries.find_events_after(
                    conn,
                    after=after,
                    since=since,
                    seen=seen,
                    tenant_id=tenant_id,
                    event_types=event_types,
                    limit=PAGE_SIZE,
                )
        except (Unavailable, psycopg.OperationalError) as error:
            if horizon is None:
                raise
            yield Followed(None, fault=str(error))
            await asyncio.sleep(POLL_SECONDS * 4)
            continue
        for event in events:
            yield Followed(event)
        seen.update(event.id for event in events)
        has_all = len(events) < PAGE_SIZE
        horizon = now if has_all else min(now, _time_of(events[-1].id))
        if has_all:
            await asyncio.sleep(POLL_SECONDS)


def _audit(event: OutboxEvent, origin: Origin) -> AuditRecord:
    detail = change({"state": event.state, "last_error": event.last_error}, {"state": "pending", "last_error": None})
    return AuditRecord(event.tenant_id, origin, RETRY_AUDIT_ACTION, str(event.id), detail)


def _id_at(time: datetime) -> UUID:
    """The lowest UUIDv7 of a time (RFC 9562, section 5.7: 48 bits of milliseconds come first)."""
    return UUID(int=int(time.timestamp() * 1000) << 80)


def _time_of(event_id: UUID) -> datetime:
    return datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)
