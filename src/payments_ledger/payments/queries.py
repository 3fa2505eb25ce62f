"""The SQL of payments: one function a statement, each over a whole batch."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import (
    CancellationReason,
    Capture,
    CaptureMethod,
    Failure,
    Payment,
    Terms,
)
from payments_ledger.postgres.database import Connection
from payments_ledger.validation.metadata import NO_METADATA


async def insert_payments(conn: Connection, payments: Sequence[Payment]) -> None:
    """Raises psycopg's UniqueViolation if an order already has a payment."""
    await conn.execute(
        """
        INSERT INTO payment_intents
            (tenant_id, id, amount, currency, status, version, customer_ref, order_id, created_at, updated_at,
             capture_method, expires_at, description, metadata)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::integer[], %s::text[],
                    %s::text[], %s::timestamptz[], %s::timestamptz[],
                    %s::text[], %s::timestamptz[], %s::text[], %s::json[])
        """,
        [
            [payment.tenant_id for payment in payments],
            [payment.id for payment in payments],
            [payment.money.amount for payment in payments],
            [payment.money.currency for payment in payments],
            [payment.status.value for payment in payments],
            [payment.version for payment in payments],
            [payment.customer_ref for payment in payments],
            [payment.order_id for payment in payments],
            [payment.created_at for payment in payments],
            [payment.updated_at for payment in payments],
            [payment.terms.capture_method.value for payment in payments],
            [payment.terms.expires_at for payment in payments],
            [payment.description for payment in payments],
            [metadata_json(payment.metadata) for payment in payments],
        ],
    )


async def lock_payments(conn: Connection, keys: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], Payment]:
    """The payments of the given (tenant, id) pairs that exist, locked until the transaction ends, in sorted order."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT payment_intents.*
        FROM payment_intents
        JOIN unnest(%s::text[], %s::uuid[]) AS wanted (tenant_id, id) USING (tenant_id, id)
        ORDER BY tenant_id, id
        FOR NO KEY UPDATE OF payment_intents
        """,
        _columns(keys),
    )
    payments = [payment_of(row) for row in await cursor.fetchall()]
    return {(payment.tenant_id, payment.id): payment for payment in payments}


async def save_payments(conn: Connection, payments: Sequence[Payment]) -> None:
    """Writes what moves and facts have changed of payments that this transaction has locked; each stands here once."""
    await conn.execute(
        """
        UPDATE payment_intents
        SET status = changed.status, version = changed.version, updated_at = changed.updated_at,
            capture_id = changed.capture_id, capture_requested_at = changed.capture_requested_at,
            amount_captured = changed.amount_captured, amount_settled = changed.amount_settled,
            amount_refunded = changed.amount_refunded, cancellation_reason = changed.cancellation_reason,
            failure_code = changed.failure_code, failure_message = changed.failure_message
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::integer[], %s::timestamptz[],
                    %s::uuid[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::bigint[],
                    %s::text[], %s::text[], %s::text[])
             AS changed (tenant_id, id, status, version, updated_at,
                         capture_id, capture_requested_at, amount_captured, amount_settled, amount_refunded,
                         cancellation_reason, failure_code, failure_message)
        WHERE payment_intents.tenant_id = changed.tenant_id AND payment_intents.id = changed.id
        """,
        [
            [payment.tenant_id for payment in payments],
            [payment.id for payment in payments],
            [payment.status.value for payment in payments],
            [payment.version for payment in payments],
            [payment.updated_at for payment in payments],
            [payment.captured.id if payment.captured else None for payment in payments],
            [payment.captured.requested_at if payment.captured else None for payment in payments],
            [payment.captured.amount if payment.captured else None for payment in payments],
            [_amount_settled(payment) for payment in payments],
            [payment.amount_refunded for payment in payments],
            [payment.cancellation_reason.value if payment.cancellation_reason else None for payment in payments],
            [payment.failure.code if payment.failure else None for payment in payments],
            [payment.failure.message if payment.failure else None for payment in payments],
        ],
    )


async def save_annotations(conn: Connection, payments: Sequence[Payment]) -> None:
    """Writes description and metadata of payments that this transaction has locked."""
    await conn.execute(
        """
        UPDATE payment_intents
        SET description = annotated.description, metadata = annotated.metadata, updated_at = annotated.updated_at
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::json[], %s::timestamptz[])
             AS annotated (tenant_id, id, description, metadata, updated_at)
        WHERE payment_intents.tenant_id = annotated.tenant_id AND payment_intents.id = annotated.id
        """,
        [
            [payment.tenant_id for payment in payments],
            [payment.id for payment in payments],
            [payment.description for payment in payments],
            [metadata_json(payment.metadata) for payment in payments],
            [payment.updated_at for payment in payments],
        ],
    )


async def find_payment(conn: Connection, tenant_id: str, payment_id: UUID) -> Payment | None:
    """None if the tenant has no payment of this id."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute("SELECT * FROM payment_intents WHERE tenant_id = %s AND id = %s", [tenant_id, payment_id])
    row = await cursor.fetchone()
    return payment_of(row) if row else None


async def find_payments_of_orders(
    conn: Connection, orders: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Payment]:
    """The payments of the given (tenant, order id) pairs that have one."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT payment_intents.*
        FROM payment_intents
        JOIN unnest(%s::text[], %s::text[]) AS wanted (tenant_id, order_id) USING (tenant_id, order_id)
        WHERE payment_intents.order_id IS NOT NULL
        """,
        [[tenant_id for tenant_id, _ in orders], [order_id for _, order_id in orders]],
    )
    payments = [payment_of(row) for row in await cursor.fetchall()]
    return {(payment.tenant_id, payment.order_id): payment for payment in payments if payment.order_id}


@dataclass(frozen=True, slots=True)
class Expiry:
    """A payment whose time has run out, or that was confirmed or captured before."""

    tenant_id: str
    payment_id: UUID


async def due_expiries(conn: Connection, limit: int) -> list[Expiry]:
    """The payments of any tenant (as the relay's role) whose time has run out, the longest ago first."""
    cursor = conn.cursor(row_factory=class_row(Expiry))
    await cursor.execute(
        "SELECT tenant_id, payment_id FROM payment_expiries WHERE expires_at <= now() ORDER BY expires_at LIMIT %s",
        [limit],
    )
    return await cursor.fetchall()


async def forget_expiries(conn: Connection, expiries: Sequence[Expiry]) -> None:
    """Deletes the rows of payments that were looked at (as the relay's role)."""
    await conn.execute(
        """
        DELETE FROM payment_expiries
        USING unnest(%s::text[], %s::uuid[]) AS swept (tenant_id, payment_id)
        WHERE payment_expiries.tenant_id = swept.tenant_id AND payment_expiries.payment_id = swept.payment_id
        """,
        [[expiry.tenant_id for expiry in expiries], [expiry.payment_id for expiry in expiries]],
    )


@dataclass(frozen=True, slots=True)
class StatusCount:
    """Payments of all tenants in a status; how long the oldest has waited for the worker, to ten seconds."""

    status: str
    payments: int
    oldest_seconds: float


async def count_payments(conn: Connection) -> list[StatusCount]:
    """By status, those that ever occurred; asks the counts that are kept, not the payments (as the relay's role)."""
    cursor = conn.cursor(row_factory=class_row(StatusCount))
    await cursor.execute(
        """
        SELECT status, sum(payments)::bigint AS payments,
               coalesce(extract(epoch FROM clock_timestamp() - min(since) FILTER (WHERE payments > 0)), 0)::float8
                   AS oldest_seconds
        FROM (
            SELECT status, since, sum(payments) AS payments
            FROM payment_counts
            GROUP BY status, since) AS counted
        GROUP BY status
        """
    )
    return await cursor.fetchall()


FIRST_COUNT = ("", UUID(int=0))
# A tenth of a second's work, and more counts than a tenant has moments at which payments are AUTHORIZED.
COUNTS_AT_ONCE = 20_000


async def sum_up_counts(
    conn: Connection, after: tuple[str, UUID] = FIRST_COUNT, limit: int = COUNTS_AT_ONCE
) -> tuple[str, UUID]:
    """Replaces counts of the same by their sum (as the relay's role), among the `limit` that follow in key order.

    Returns after which the next portion begins, FIRST_COUNT at the end. Two that do so at once do no harm: each adds up
    what it has removed itself.
    """
    cursor = await conn.execute(
        """
        WITH portion AS (
            SELECT tenant_id, id, status, since
            FROM payment_counts
            WHERE (tenant_id, id) > (%s, %s)
            ORDER BY tenant_id, id
            LIMIT %s
        ), several AS (
            SELECT tenant_id, id
            FROM (SELECT tenant_id, id, count(*) OVER (PARTITION BY tenant_id, status, since) AS same FROM portion)
            WHERE same > 1
        ), taken AS (
            DELETE FROM payment_counts
            USING several
            WHERE payment_counts.tenant_id = several.tenant_id AND payment_counts.id = several.id
            RETURNING payment_counts.tenant_id, payment_counts.status, payment_counts.since, payments
        ), summed AS (
            INSERT INTO payment_counts (tenant_id, status, since, payments)
            SELECT tenant_id, status, since, sum(payments)
            FROM taken
            GROUP BY tenant_id, status, since
            HAVING sum(payments) <> 0
        )
        SELECT tenant_id, id FROM portion ORDER BY tenant_id, id OFFSET %s - 1
        """,
        [*after, limit, limit],
    )
    return await cursor.fetchone() or FIRST_COUNT


def _columns(keys: Collection[tuple[str, UUID]]) -> list[list[Any]]:
    return [[tenant_id for tenant_id, _ in keys], [payment_id for _, payment_id in keys]]


def metadata_json(metadata: Mapping[str, str]) -> str | None:
    """As it is kept: a JSON object as text, NULL for none."""
    return json.dumps(dict(metadata), ensure_ascii=False) if metadata else None


def _amount_settled(payment: Payment) -> int | None:
    return payment.captured.amount if payment.captured and payment.status is Status.SETTLED else None


def payment_of(row: dict[str, Any]) -> Payment:
    """A row of payment_intents as the value."""
    capture_id, reason, failure_code = row["capture_id"], row["cancellation_reason"], row["failure_code"]
    return Payment(
        tenant_id=row["tenant_id"],
        id=row["id"],
        money=Money(row["amount"], row["currency"]),
        status=Status(row["status"]),
        version=row["version"],
        customer_ref=row["customer_ref"],
        order_id=row["order_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        terms=Terms(CaptureMethod(row["capture_method"]), row["expires_at"]),
        description=row["description"],
        metadata=row["metadata"] or NO_METADATA,
        captured=Capture(capture_id, row["amount_captured"], row["capture_requested_at"]) if capture_id else None,
        amount_refunded=row["amount_refunded"],
        cancellation_reason=CancellationReason(reason) if reason else None,
        failure=Failure(failure_code, row["failure_message"]) if failure_code else None,
    )
