"""The SQL of orders: one row an order, locked by whoever acts on it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from payments_ledger.postgres.database import Connection

type OrderKey = tuple[str, str]
"""The tenant and the order's id."""


@dataclass(frozen=True, slots=True)
class Locked:
    """Of the orders that were locked, those that were cancelled before, and those that are new."""

    cancelled: set[OrderKey] = field(default_factory=set)
    new: set[OrderKey] = field(default_factory=set)


async def lock_orders(conn: Connection, orders: Collection[OrderKey]) -> Locked:
    """Locks the orders in sorted order, adding those that are new."""
    cursor = await conn.execute(
        """
        INSERT INTO orders AS kept (tenant_id, order_id)
        SELECT tenant_id, order_id
        FROM unnest(%s::text[], %s::text[]) AS wanted (tenant_id, order_id)
        ORDER BY tenant_id, order_id
        ON CONFLICT (tenant_id, order_id) DO UPDATE SET cancelled_at = kept.cancelled_at
        RETURNING tenant_id, order_id, cancelled_at IS NOT NULL, xmax = 0
        """,
        _columns(orders),
    )
    locked = Locked()
    # A row that was there has been locked by this transaction, which its xmax names.
    for tenant_id, order_id, is_cancelled, is_new in await cursor.fetchall():
        if is_cancelled:
            locked.cancelled.add((tenant_id, order_id))
        if is_new:
            locked.new.add((tenant_id, order_id))
    return locked


async def mark_cancelled(conn: Connection, orders: Collection[OrderKey]) -> None:
    """Records that the orders, which this transaction has locked, are cancelled; for good."""
    await conn.execute(
        """
        UPDATE orders SET cancelled_at = now()
        FROM unnest(%s::text[], %s::text[]) AS cancelled (tenant_id, order_id)
        WHERE orders.tenant_id = cancelled.tenant_id AND orders.order_id = cancelled.order_id
        """,
        _columns(orders),
    )


def _columns(orders: Collection[OrderKey]) -> list[list[str]]:
    return [[tenant_id for tenant_id, _ in orders], [order_id for _, order_id in orders]]
