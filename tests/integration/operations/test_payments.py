"""Payments in the operator's hands: as for clients, in the operator's name, and run again where two collide."""

import asyncio
from decimal import Decimal
from uuid import UUID

import pytest

from payments_ledger.commit.audit import Origin
from payments_ledger.errors import PaymentNotFound, ReferenceTaken, UnknownTenant
from payments_ledger.operations import payments
from payments_ledger.payments.listing import PaymentFilter
from payments_ledger.postgres.database import Database
from payments_ledger.refunds.refund import Refund
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.telemetry.tracing import Trace
from tests.integration.books import create_a_payment, settle_a_payment

pytestmark = pytest.mark.anyio

# Of no payment.
NOBODYS = UUID(int=7)
OPERATOR = Origin("cli:ada", None, Trace("corr-cli"))


async def test_refunds_under_one_reference_at_once_are_one_in_the_operators_name(
    database: Database, owner: Database, tenant: str
) -> None:
    payment = await settle_a_payment(database, tenant)
    command = RefundPayment(tenant, payment.id, Decimal(1), OPERATOR, reference="R-1")
    outcomes = await asyncio.gather(
        *(payments.carry_out(owner, refund_payments, command) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [ReferenceTaken.__name__] * 3 + [Refund.__name__]
    shown = await payments.show(owner, tenant, payment.id)
    assert ([refund.reference for refund in shown.refunds], shown.payment.amount_refunded) == (["R-1"], 100)
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute("SELECT principal FROM audit_log WHERE action = 'payment.refund'")
        assert await cursor.fetchall() == [("cli:ada",)]


async def test_the_newest_payments_are_listed_and_what_is_not_there_is_said(
    database: Database, owner: Database, tenant: str
) -> None:
    made = [await create_a_payment(database, tenant) for _ in range(3)]
    newest = await payments.list_newest(owner, tenant, PaymentFilter(), limit=2)
    assert [payment.id for payment in newest] == [made[2].id, made[1].id]
    with pytest.raises(UnknownTenant):
        await payments.list_newest(owner, "nobody", PaymentFilter(), limit=2)
    with pytest.raises(PaymentNotFound):
        await payments.show(owner, tenant, NOBODYS)
