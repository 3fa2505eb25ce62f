"""The SQL of the operator's overview: which schema there is, and what was settled last."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Settlement:
    """An entry of the kind settlement; `amount` in minor units."""

    tenant_id: str
    payment_id: UUID
    settled_at: datetime
    amount: int
    currency: str


async def find_schema_version(conn: Connection) -> str | None:
    """The newest migration that was applied. Only the schema's owner may ask."""
    cursor = await conn.execute("SELECT max(version_num) FROM alembic_version")
    row = await cursor.fetchone()
    return row[0] if row else None


async def list_last_settlements(conn: Connection, limit: int) -> list[Settlement]:
    """Newest first, over the tenants that the role may see."""
    cursor = conn.cursor(row_factory=class_row(Settlement))
    await cursor.execute(
        """
        SELECT entry.tenant_id, entry.source_id AS payment_id, entry.posted_at AS settled_at,
               posting.amount, posting.currency
        FROM tenants CROSS JOIN LATERAL (
            SELECT tenant_id, posted_at, id, source_id
            FROM ledger_entries
            WHERE ledger_entries.tenant_id = tenants.tenant_id AND kind = 'settlement'
            ORDER BY posted_at DESC, id DESC
            LIMIT %(limit)s
        ) AS entry
        JOIN ledger_postings AS posting
          ON posting.tenant_id = entry.tenant_id AND posting.posted_at = entry.posted_at
         AND posting.entry_id = entry.id AND posting.position = 1
        ORDER BY entry.posted_at DESC, entry.id DESC
        LIMIT %(limit)s
        """,
        {"limit": limit},
    )
    return await cursor.fetchall()
