"""The worker's part in the feed: events get their positions, a moment after they were written."""

from datetime import timedelta

from payments_ledger.feed import queries
from payments_ledger.postgres.database import Database, transaction_time
from payments_ledger.process.failpoints import Place, failpoint
from payments_ledger.process.periodic import Again

# A reader sees an event so much later at most, if no transaction holds it up.
SEQUENCE_SECONDS = 0.1
# What these many transactions wrote is appended at once, most of them having written nothing.
TRANSACTIONS_AT_ONCE = 1000
# Of the events from before there was a log.
OLDER_AT_ONCE = 2000
# Below that it is not worth a write to record that nothing was found.
QUIET_TRANSACTIONS = 500
EXPIRED_AT_ONCE = 5000
EXPIRE_SECONDS = 3600.0


async def extend_log(outbox: Database) -> Again | None:
    """Appends what nothing can come before any more; of several workers one does so at a time.

    `outbox` has the relay's role. All of it is one transaction: killed anywhere, it is done again by the next.
    """
    async with outbox.transaction() as conn:
        reach = await queries.take_reach(conn)
        if reach is None:
            return None
        if reach.older_tenant is not None:
            await queries.append_older(conn, reach, OLDER_AT_ONCE)
            return Again.AT_ONCE
        below = min(reach.ended_below, reach.written_below + TRANSACTIONS_AT_ONCE)
        appended = await queries.append_written(conn, reach.written_below, below) if below > reach.written_below else 0
        if appended or below - reach.written_below >= QUIET_TRANSACTIONS:
            await queries.move_reach(conn, below)
        await failpoint(Place.LOG_BEFORE_COMMIT)
    return Again.AT_ONCE if below < reach.ended_below else None


async def forget_expired(outbox: Database, *, days: int) -> None:
    """Removes the positions of events that retention has dropped; with 0 days nothing is ever dropped."""
    while days:
        async with outbox.transaction() as conn:
            before = await transaction_time(conn) - timedelta(days=days)
            deleted = await queries.delete_expired(conn, before, EXPIRED_AT_ONCE)
        if deleted < EXPIRED_AT_ONCE:
            return
