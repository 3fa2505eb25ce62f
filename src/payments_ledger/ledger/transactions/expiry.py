"""The worker's part in expiry: holds whose time is over are ended within a second."""

import asyncio

import structlog

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import Rejected
from payments_ledger.ledger.transactions.queries import DueHold, list_due_holds
from payments_ledger.ledger.transactions.use_cases import SWEEPER, ExpireHold, change_book
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import Trace

log = structlog.get_logger(__name__)

# Well within the second in which a hold is to be ended.
SWEEP_SECONDS = 0.5
# Together in a few batches of the group commit.
SWEPT_AT_ONCE = 500


async def sweep_expired_holds(outbox: Database, commands: GroupCommit) -> None:
    """Ends what has expired; `outbox` has the relay's role, which sees the expired holds of every tenant.

    Two workers that do so at once do no harm: the later one is refused. So is what was posted or voided in time.
    """
    while True:
        async with outbox.transaction() as conn:
            due = await list_due_holds(conn, SWEPT_AT_ONCE)
        if not due:
            return
        outcomes = await asyncio.gather(*(commands.submit(change_book, _command(hold)) for hold in due))
        expired = sum(not isinstance(outcome, Rejected) for outcome in outcomes)
        log.info("holds expired", number=expired)
        if not expired:
            # Another worker has them all.
            return


def _command(hold: DueHold) -> ExpireHold:
    return ExpireHold(hold.tenant_id, hold.id, Origin(SWEEPER, None, Trace(hold.correlation_id)))
