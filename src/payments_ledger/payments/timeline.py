"""What happened to a payment, from what was written down at the time: moves and facts, entries, published events.

Each kind of line has a statement of its own. To tell of more, as of the deliveries of webhooks, add one to _KINDS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from psycopg.rows import dict_row

from payments_ledger.payments.lifecycle import CAPTURE, FACTS, MOVES, REFUND
from payments_ledger.postgres.database import Connection

ENTRY = "ledger.entry"
PUBLISHED = "event.published"

# The type of event that tells of what the audit log has under this action.
_EVENTS = {step.action: step.event for step in (*MOVES, *FACTS)}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a line stands: what one transaction wrote has one time, and its `kind` and id tell the rest."""

    at: datetime
    kind: int
    id: UUID

    def __str__(self) -> str:
        return f"{self.at.isoformat()} {self.kind} {self.id}"

    @classmethod
    def read(cls, text: str) -> Self:
        """What `str` made of a place."""
        at, kind, line_id = text.split(" ")
        return cls(datetime.fromisoformat(at), int(kind), UUID(line_id))


BEGINNING = Place(datetime.min.replace(tzinfo=UTC), 0, UUID(int=0))


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened; `by` is a user's id, or the name of one of our processes. Amounts are decimal texts."""

    place: Place
    type: str
    by: str
    correlation_id: str
    detail: Mapping[str, Any]


async def list_timeline(
    conn: Connection, tenant_id: str, payment_id: UUID, *, after: Place = BEGINNING, limit: int
) -> list[Line]:
    """Up to `limit` lines about the payment, oldest first, of those that come after a place."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    lines: list[Line] = []
    for number, kind in enumerate(_KINDS, start=1):
        await cursor.execute(
            f"""
            SELECT *
            FROM ({kind.statement}) AS line
            WHERE (at, {number}, id) > (%(at)s, %(kind)s, %(id)s)
            ORDER BY at, id
            LIMIT %(limit)s
            """.encode(),  # noqa: S608
            {
                "tenant_id": tenant_id,
                "payment_id": payment_id,
                "target": str(payment_id),
                "actions": list(_EVENTS),
                "at": after.at,
                "kind": after.kind,
                "id": after.id,
                "limit": limit,
            },
        )
        lines += [kind.show(Place(row["at"], number, row["id"]), row) for row in await cursor.fetchall()]
    return sorted(lines, key=lambda line: line.place)[:limit]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A statement that finds `at`, `id`, `by`, `correlation_id` and more of lines not before %(at)s, and their look."""

    statement: str
    show: Callable[[Place, Mapping[str, Any]], Line]


def _fact(place: Place, row: Mapping[str, Any]) -> Line:
    told, action = row["detail"], row["action"]
    amount, _, currency = told["amount"].partition(" ")
    detail = {"status": told["after"]["status"], "amount": amount, "currency": currency}
    kept = ("refund_id", "reference", "capture_id", "amount_captured", "cancellation_reason", "failure_code")
    detail |= {name: told[name] for name in kept if name in told}
    if action == REFUND.action and "refund_amount" in told:
        detail["refund_amount"] = told["refund_amount"].partition(" ")[0]
    if action == CAPTURE.action:
        detail["amount_released"] = str(Decimal(amount) - Decimal(told["amount_captured"]))
    if row["event_id"]:
        detail["event_id"] = str(row["event_id"])
    return Line(place, _EVENTS[action], row["by"], row["correlation_id"], detail)


def _entry(place: Place, row: Mapping[str, Any]) -> Line:
    detail = {"entry_id": str(row["entry_id"]), "kind": row["kind"], "source_id": str(row["source_id"])}
    return Line(place, ENTRY, row["by"], row["correlation_id"], detail)


def _published(place: Place, row: Mapping[str, Any]) -> Line:
    detail = {"event_id": str(row["id"]), "event_type": row["event_type"], "sequence": row["sequence"]}
    return Line(place, PUBLISHED, row["by"], row["correlation_id"], detail)


# A move's event is one of the first four: a payment has at most three moves and a capture, and refunds come last.
_FACTS = """
    SELECT audit.at, audit.id, audit.principal AS by, audit.correlation_id, audit.action, audit.detail,
           (SELECT event.id
            FROM outbox_events AS event
            JOIN payment_moves AS move ON move.event_type = event.event_type
            WHERE event.tenant_id = %(tenant_id)s AND event.aggregate_id = %(payment_id)s AND event.sequence <= 4
              AND move.audit_action = audit.action
            LIMIT 1) AS event_id
    FROM audit_log AS audit
    WHERE audit.tenant_id = %(tenant_id)s AND audit.target = %(target)s AND audit.at >= %(at)s
      AND audit.action = ANY (%(actions)s)
"""

# The source of an entry is the payment, its capture, or a refund; of refunds before migration 0015 the payment too. Who
# made an entry is who wrote the fact, in the same transaction.
_ENTRIES = """
    SELECT posted.*, coalesce(
               (SELECT audit.principal
                FROM audit_log AS audit
                WHERE audit.tenant_id = %(tenant_id)s AND audit.target = %(target)s AND audit.at = posted.at
                  AND audit.correlation_id = posted.correlation_id
                LIMIT 1), 'unknown') AS by
    FROM (
        SELECT posted_at AS at, id, id AS entry_id, kind, source_id, correlation_id
        FROM ledger_entries
        WHERE tenant_id = %(tenant_id)s AND posted_at >= %(at)s AND source_id IN (
            %(payment_id)s,
            (SELECT capture_id FROM payment_intents WHERE tenant_id = %(tenant_id)s AND id = %(payment_id)s))
        UNION ALL
        SELECT refund.created_at, refund.id, entry.id, entry.kind, entry.source_id, entry.correlation_id
        FROM payment_refunds AS refund
        JOIN ledger_entries AS entry ON entry.tenant_id = %(tenant_id)s AND entry.source_id = refund.id
        WHERE refund.tenant_id = %(tenant_id)s AND refund.payment_id = %(payment_id)s AND refund.created_at >= %(at)s
    ) AS posted
"""

_EVENTS_PUBLISHED = """
    SELECT published_at AS at, id, 'worker' AS by, headers ->> 'X-Correlation-Id' AS correlation_id,
           event_type, sequence
    FROM outbox_events
    WHERE tenant_id = %(tenant_id)s AND aggregate_id = %(payment_id)s AND published_at >= %(at)s
"""

# In the order in which lines of the same time are told.
_KINDS = (_Kind(_FACTS, _fact), _Kind(_ENTRIES, _entry), _Kind(_EVENTS_PUBLISHED, _published))
