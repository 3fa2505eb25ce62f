"""Payments in the operator's hands: look at them, and do what clients can, in the name of whoever runs the command."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments_ledger.commit.group_commit import GroupCommit, UseCase
from payments_ledger.errors import PaymentNotFound, Rejected
from payments_ledger.ledger.currencies import load_currencies
from payments_ledger.ledger.period import Period
from payments_ledger.payments.listing import PaymentFilter, list_payments
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.use_cases import PaymentCommand
from payments_ledger.postgres.database import Database, transaction_time
from payments_ledger.refunds.queries import list_refunds
from payments_ledger.refunds.refund import Refund
from payments_ledger.tenants.queries import require_tenant

# A payment with more refunds than these is looked at over HTTP, page by page.
REFUNDS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class ShownPayment:
    """A payment at a time, with its newest refunds."""

    payment: Payment
    at: datetime
    refunds: Sequence[Refund]


async def show(owner: Database, tenant_id: str, payment_id: UUID) -> ShownPayment:
    """Raises UnknownTenant, PaymentNotFound or Unavailable."""
    async with owner.transaction([tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        await load_currencies(conn)
        payment = await find_payment(conn, tenant_id, payment_id)
        if payment is None:
            raise PaymentNotFound
        refunds = await list_refunds(
            conn, tenant_id, Period(), payment_id=payment_id, reference=None, after=None, limit=REFUNDS_SHOWN
        )
        return ShownPayment(payment, await transaction_time(conn), refunds)


async def list_newest(owner: Database, tenant_id: str, wanted: PaymentFilter, *, limit: int) -> list[Payment]:
    """Up to `limit` payments that meet the filter, newest first. Raises UnknownTenant or Unavailable."""
    found: list[Payment] = []
    after: tuple[datetime, UUID] | None = None
    async with owner.transaction([tenant_id]) as conn:
        await require_tenant(conn, tenant_id)
        await load_currencies(conn)
        while len(found) < limit:
            listed = await list_payments(conn, tenant_id, wanted, after=after, limit=limit - len(found))
            found += listed.payments
            # A page that is short although there may be more says where to go on.
            after = listed.goes_on_after
            if after is None:
                break
    return found


async def carry_out[C: PaymentCommand, O](owner: Database, use_case: UseCase[C, O | Rejected], command: C) -> O:
    """The outcome of the command; a refusal is raised. A collision with others runs it again, as for clients."""
    async with owner.transaction([command.tenant_id]) as conn:
        await require_tenant(conn, command.tenant_id)
        await load_currencies(conn)
    outcome = await GroupCommit(owner.transaction).submit(use_case, command)
    if isinstance(outcome, Rejected):
        raise outcome.error
    return outcome
