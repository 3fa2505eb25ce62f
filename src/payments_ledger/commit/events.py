"""An event, and how it is written in the transaction of the change that it reports."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from payments_ledger.postgres.database import Connection
from payments_ledger.telemetry.tracing import Trace


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one aggregate (a payment); `sequence` counts its events from 1, without a gap.

    `id` becomes the message's id; `payload` is the message's body, a flat JSON object as text.
    """

    tenant_id: str
    id: UUID
    type: str
    aggregate_id: UUID
    sequence: int
    payload: str
    trace: Trace


def defer_events(conn: Connection, events: Sequence[Event]) -> None:
    """Adds the events to the outbox when the transaction commits; then the relay publishes them."""
    conn.defer(_insert_events, events)


async def _insert_events(conn: Connection, events: Sequence[Event]) -> None:
    await conn.execute(
        """
        INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::uuid[], %s::integer[], %s::json[], %s::json[])
        """,
        [
            [event.tenant_id for event in events],
            [event.id for event in events],
            [event.type for event in events],
            [event.aggregate_id for event in events],
            [event.sequence for event in events],
            [event.payload for event in events],
            [json.dumps(_headers(event)) for event in events],
        ],
    )


def _headers(event: Event) -> dict[str, str]:
    headers = {"X-Correlation-Id": event.trace.correlation_id, "X-Tenant-Id": event.tenant_id}
    if event.trace.traceparent:
        headers["traceparent"] = event.trace.traceparent
    return headers
