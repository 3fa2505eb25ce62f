"""Purges idempotency keys that have expired, in portions that hold no lock for long."""

from payments_ledger.commit.idempotency import delete_expired_keys
from payments_ledger.postgres.database import Database
from payments_ledger.process.periodic import Again

PURGE_SECONDS = 60.0
KEYS_AT_ONCE = 1000


async def purge_expired_keys(database: Database) -> Again | None:
    """One portion, a step of `repeat`; `database` has the relay's role, which may delete keys of every tenant."""
    async with database.transaction() as conn:
        deleted = await delete_expired_keys(conn, KEYS_AT_ONCE)
    return Again.AT_ONCE if deleted == KEYS_AT_ONCE else None
