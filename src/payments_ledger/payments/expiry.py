"""The worker's part in expiry: payments whose time has run out are cancelled, within a second."""

import asyncio

import structlog

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import Rejected
from payments_ledger.payments import queries
from payments_ledger.payments.use_cases import ExpirePayment, expire_payments
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import begin_trace

log = structlog.get_logger(__name__)

PRINCIPAL = "worker"

# Well within the second in which a payment is to be cancelled.
SWEEP_SECONDS = 0.5
# Together in a few batches of the group commit.
SWEPT_AT_ONCE = 500


async def sweep_expired(outbox: Database, commands: GroupCommit) -> None:
    """Cancels what has expired; `outbox` has the relay's role, which sees the expiries of every tenant.

    Two workers that do so at once do no harm: the later one is refused. So is what was confirmed or captured in time.
    """
    while True:
        async with outbox.transaction() as conn:
            due = await queries.due_expiries(conn, SWEPT_AT_ONCE)
        if not due:
            return
        outcomes = await asyncio.gather(*(commands.submit(expire_payments, _command(expiry)) for expiry in due))
        async with outbox.transaction() as conn:
            await queries.forget_expiries(conn, due)
        expired = sum(not isinstance(outcome, Rejected) for outcome in outcomes)
        if expired:
            log.info("payments expired", number=expired)


def _command(expiry: queries.Expiry) -> ExpirePayment:
    return ExpirePayment(expiry.tenant_id, expiry.payment_id, Origin(PRINCIPAL, None, begin_trace(None, None)))
