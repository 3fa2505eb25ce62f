"""What most tests need done first: a payment that went all the way, by the real use cases."""

from collections.abc import Sequence
from http import HTTPStatus

from uuid_utils.compat import uuid7

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.idempotency import Key, Keyed, StoredResponse, respond_once
from payments_ledger.errors import Rejected
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.money import Money
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.routes import PATH
from payments_ledger.payments.schemas import payment_body
from payments_ledger.payments.use_cases import (
    ConfirmPayment,
    CreatePayments,
    NewPayment,
    SettlePayment,
    confirm_payments,
    create_payments,
    settle_payments,
)
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import Trace
from payments_ledger.verify.audit import Result, audit

ORIGIN = Origin("tester", "127.0.0.1", Trace("corr-test"))
BRL_100 = Money(10_000, "BRL")


def creation(tenant_id: str, money: Money = BRL_100) -> CreatePayments:
    """The command that creates one payment."""
    return CreatePayments(tenant_id, (NewPayment(uuid7(), money, "CUST-1"),), ORIGIN)


def only_payment(command: CreatePayments) -> NewPayment:
    """The payment of a command that creates one."""
    [payment] = command.payments
    assert isinstance(payment, NewPayment)
    return payment


async def create_a_payment(
    database: Database, tenant_id: str, money: Money = BRL_100, idempotency_key: str | None = None
) -> Payment:
    created: list[Payment] = []

    async def render(_: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> StoredResponse:
        [payment] = outcomes
        assert isinstance(payment, Payment)
        created.append(payment)
        return StoredResponse(HTTPStatus.CREATED, payment_body(payment), location=f"{PATH}/{payment.id}")

    key = Key(tenant_id, "tester", f"POST {PATH}", idempotency_key, b"f", 60) if idempotency_key else None
    async with database.transaction([tenant_id]) as conn:
        await respond_once(conn, [Keyed(create_payments, render, creation(tenant_id, money), key)])
    return created[0]


async def confirm_a_payment(database: Database, payment: Payment) -> Payment:
    async with database.transaction([payment.tenant_id]) as conn:
        [outcome] = await confirm_payments(conn, [ConfirmPayment(payment.tenant_id, payment.id, ORIGIN)])
    assert isinstance(outcome, Payment)
    return outcome


async def settle_a_payment(
    database: Database, tenant_id: str, money: Money = BRL_100, idempotency_key: str | None = None
) -> Payment:
    """Creates, confirms and settles."""
    payment = await confirm_a_payment(database, await create_a_payment(database, tenant_id, money, idempotency_key))
    async with database.transaction([tenant_id]) as conn:
        [outcome] = await settle_payments(conn, [SettlePayment(tenant_id, payment.id, ORIGIN)])
    assert isinstance(outcome, Payment)
    return outcome


async def broken_checks(url: str, tenant: str, **options: int) -> dict[str, Result]:
    """What the audit finds broken among the tenant's rows, by the invariants' names."""
    results = [result async for result in audit(url, INVARIANTS, tenant_id=tenant, bounds=BOUNDS | options)]
    assert [result.invariant for result in results] == list(INVARIANTS)
    return {result.invariant.name: result for result in results if not result.ok}
