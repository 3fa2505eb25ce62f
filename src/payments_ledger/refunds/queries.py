"""The SQL of refunds: one function a statement."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from payments_ledger.ledger.period import Period
from payments_ledger.money import Money
from payments_ledger.payments.queries import metadata_json
from payments_ledger.postgres.database import Connection
from payments_ledger.refunds.refund import Refund
from payments_ledger.validation.metadata import NO_METADATA


async def find_taken_references(conn: Connection, references: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (tenant, reference) pairs that a refund has."""
    if not references:
        return set()
    cursor = await conn.cursor(binary=True).execute(
        """
        SELECT tenant_id, reference
        FROM payment_refunds
        JOIN unnest(%s::text[], %s::text[]) AS wanted (tenant_id, reference) USING (tenant_id, reference)
        WHERE reference IS NOT NULL
        """,
        [[tenant_id for tenant_id, _ in references], [reference for _, reference in references]],
    )
    return {(tenant_id, reference) for tenant_id, reference in await cursor.fetchall()}


async def insert_refunds(conn: Connection, refunds: Sequence[Refund]) -> None:
    """Their payments have the new sums already. A reference that another transaction took meanwhile is a collision."""
    await conn.execute(
        """
        WITH added AS (
            INSERT INTO payment_refunds
                (tenant_id, id, payment_id, amount, currency, status, reason, reference, metadata, created_at)
            SELECT *
            FROM unnest(%s::text[], %s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[],
                        %s::text[], %s::json[], %s::timestamptz[])
            ON CONFLICT (tenant_id, reference) WHERE reference IS NOT NULL DO NOTHING
            RETURNING 1
        )
        SELECT CASE WHEN count(*) < %s THEN run_again('a reference was taken meanwhile') END FROM added
        """,
        [
            [refund.tenant_id for refund in refunds],
            [refund.id for refund in refunds],
            [refund.payment_id for refund in refunds],
            [refund.money.amount for refund in refunds],
            [refund.money.currency for refund in refunds],
            [refund.status for refund in refunds],
            [refund.reason for refund in refunds],
            [refund.reference for refund in refunds],
            [metadata_json(refund.metadata) for refund in refunds],
            [refund.created_at for refund in refunds],
            len(refunds),
        ],
    )


async def find_refund(conn: Connection, tenant_id: str, refund_id: UUID) -> Refund | None:
    """None if the tenant has no refund of this id."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute("SELECT * FROM payment_refunds WHERE tenant_id = %s AND id = %s", [tenant_id, refund_id])
    row = await cursor.fetchone()
    return _refund(row) if row else None


async def list_refunds(
    conn: Connection,
    tenant_id: str,
    period: Period,
    *,
    payment_id: UUID | None,
    reference: str | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Refund]:
    """Up to `limit` refunds made in the period, newest first, beginning after a position (created_at, id)."""
    before, before_id = period.before(after)
    # What does not hold is left out, not made true by its parameter: under row-level security no index is used for
    # such a condition, once a prepared statement has a plan for any parameters.
    conditions = {
        "payment_id = %(payment_id)s": payment_id,
        "reference = %(reference)s": reference,
        "created_at >= %(start)s": period.start,
        "(created_at, id) < (%(before)s, %(before_id)s)": before,
    }
    held = " AND ".join(condition for condition, value in conditions.items() if value is not None) or "true"
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        f"""
        SELECT *
        FROM payment_refunds
        WHERE tenant_id = %(tenant_id)s AND {held}
        ORDER BY created_at DESC, id DESC
        LIMIT %(limit)s
        """.encode(),  # noqa: S608
        {
            "tenant_id": tenant_id,
            "payment_id": payment_id,
            "reference": reference,
            "start": period.start,
            "before": before,
            "before_id": before_id,
            "limit": limit,
        },
    )
    return [_refund(row) for row in await cursor.fetchall()]


def _refund(row: dict[str, Any]) -> Refund:
    return Refund(
        tenant_id=row["tenant_id"],
        id=row["id"],
        payment_id=row["payment_id"],
        money=Money(row["amount"], row["currency"]),
        created_at=row["created_at"],
        reason=row["reason"],
        reference=row["reference"],
        metadata=row["metadata"] or NO_METADATA,
        status=row["status"],
    )
