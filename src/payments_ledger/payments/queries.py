"""The SQL of payments: one function a statement, each over a whole batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment
from payments_ledger.postgres.database import Connection


async def insert_payments(conn: Connection, payments: Sequence[Payment]) -> None:
    """Raises psycopg's UniqueViolation if an order already has a payment."""
    await conn.execute(
        """
        INSERT INTO payment_intents
            (tenant_id, id, amount, currency, status, version, customer_ref, order_id, created_at, updated_at)
        SELECT *
        FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::integer[], %s::text[],
                    %s::text[], %s::timestamptz[], %s::timestamptz[])
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
    payments = [_payment(row) for row in await cursor.fetchall()]
    return {(payment.tenant_id, payment.id): payment for payment in payments}


async def save_moves(conn: Connection, payments: Sequence[Payment]) -> None:
    """Writes the new status of payments that this transaction has locked."""
    await conn.execute(
        """
        UPDATE payment_intents
        SET status = moved.status, version = moved.version, updated_at = moved.updated_at
        FROM unnest(%s::text[], %s::uuid[], %s::text[], %s::integer[], %s::timestamptz[])
             AS moved (tenant_id, id, status, version, updated_at)
        WHERE payment_intents.tenant_id = moved.tenant_id AND payment_intents.id = moved.id
        """,
        [
            [payment.tenant_id for payment in payments],
            [payment.id for payment in payments],
            [payment.status.value for payment in payments],
            [payment.version for payment in payments],
            [payment.updated_at for payment in payments],
        ],
    )


async def find_payment(conn: Connection, tenant_id: str, payment_id: UUID) -> Payment | None:
    """None if the tenant has no payment of this id."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute("SELECT * FROM payment_intents WHERE tenant_id = %s AND id = %s", [tenant_id, payment_id])
    row = await cursor.fetchone()
    return _payment(row) if row else None


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
    payments = [_payment(row) for row in await cursor.fetchall()]
    return {(payment.tenant_id, payment.order_id): payment for payment in payments if payment.order_id}


@dataclass(frozen=True, slots=True)
class StatusCount:
    """Payments of all tenants in a status; of AUTHORIZED ones, how long the oldest has been so, to ten seconds."""

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


def _payment(row: dict[str, Any]) -> Payment:
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
    )
