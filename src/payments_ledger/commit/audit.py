"""The audit log: who did what to which thing, in the transaction of the change; and who was refused, soon after."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uuid_utils.compat import uuid7

from payments_ledger.postgres.database import Connection
from payments_ledger.telemetry.tracing import Trace


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for something, from where, and the trace it belongs to."""

    principal: str
    address: str | None
    trace: Trace


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log; `action` is a verb phrase such as "payment.authorize", `target` an id."""

    tenant_id: str
    origin: Origin
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)


def change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """The detail of a change: the target before (None: it was made) and after it (None: it was removed)."""
    return {"before": before, "after": after}


def defer_audit(conn: Connection, records: Sequence[AuditRecord]) -> None:
    """Appends the records when the transaction commits."""
    conn.defer(_insert_records, records)


async def record_refusals(conn: Connection, records: Sequence[AuditRecord]) -> None:
    """Appends the records; one whose tenant does not exist goes to the tenant *, which the transaction must name."""
    await conn.execute(
        """
        INSERT INTO audit_log (tenant_id, id, principal, address, action, target, correlation_id, detail)
        SELECT coalesce(tenants.tenant_id, '*'), id, principal, address, action, target, correlation_id, detail
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::json[])
             AS refused (tenant_id, id, principal, address, action, target, correlation_id, detail)
        LEFT JOIN tenants ON tenants.tenant_id = refused.tenant_id
        """,
        _columns(records),
    )


async def _insert_records(conn: Connection, records: Sequence[AuditRecord]) -> None:
    await conn.execute(
        """
        INSERT INTO audit_log (tenant_id, id, principal, address, action, target, correlation_id, detail)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::json[])
        """,
        _columns(records),
    )


def _columns(records: Sequence[AuditRecord]) -> list[list[Any]]:
    return [
        [record.tenant_id for record in records],
        [uuid7() for _ in records],
        [record.origin.principal for record in records],
        [record.origin.address for record in records],
        [record.action for record in records],
        [record.target for record in records],
        [record.origin.trace.correlation_id for record in records],
        [json.dumps(record.detail) for record in records],
    ]
