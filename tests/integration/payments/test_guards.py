"""What PostgreSQL refuses of payments and refunds, whoever asks: the program's own role, with its own statements."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.ledger.use_cases import post_entries
from payments_ledger.postgres.database import Database
from tests.integration.books import BRL_100
from tests.integration.conftest import Api
from tests.integration.payments.lifecycle_requests import act, authorized, created, settled

pytestmark = pytest.mark.anyio

MOVED = "version = version + 1, updated_at = now()"
CAPTURED = f"capture_id = gen_random_uuid(), capture_requested_at = now(), {MOVED}"
REFUSALS = (psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)

# Of a payment of BRL 100.00 of this kind, what is not to be had; each alone breaks one rule.
FORBIDDEN = {
    "created": [
        f"status = 'SETTLED', {MOVED}",
        "status = 'AUTHORIZED', updated_at = now()",
        f"{CAPTURED}, amount_captured = 10000",
        f"amount_refunded = 1, {MOVED}",
        f"status = 'CANCELLED', cancellation_reason = 'expired', {MOVED}",
        f"status = 'CANCELLED', cancellation_reason = 'because', {MOVED}",
        f"status = 'FAILED', failure_code = 'No Code', {MOVED}",
        f"status = 'CANCELLED', failure_code = 'declined', {MOVED}",
        "cancellation_reason = 'duplicate'",
        "description = ''",
        """metadata = '["no object"]'""",
        "version = version + 1",
    ],
    "automatic": [f"{CAPTURED}, amount_captured = 10000"],
    "manual": [
        f"status = 'SETTLED', {MOVED}",
        f"status = 'SETTLED', amount_settled = 10000, {MOVED}",
        f"{CAPTURED}, amount_captured = 10001",
        f"{CAPTURED}, amount_captured = 0",
        f"{CAPTURED}",
        f"capture_id = gen_random_uuid(), amount_captured = 1, {MOVED}",
        f"{CAPTURED}, amount_captured = 1, status = 'SETTLED', amount_settled = 1",
    ],
    "captured": [
        f"status = 'SETTLED', {MOVED}",
        f"status = 'SETTLED', amount_settled = 10000, {MOVED}",
        f"status = 'CANCELLED', {MOVED}",
        f"status = 'FAILED', failure_code = 'declined', {MOVED}",
        f"{CAPTURED}, amount_captured = 8000",
        f"amount_captured = 9000, {MOVED}",
        f"capture_id = NULL, capture_requested_at = NULL, amount_captured = NULL, {MOVED}",
    ],
    "settled": [
        f"amount_refunded = 10001, {MOVED}",
        f"amount_refunded = -1, {MOVED}",
        "amount_refunded = 1",
        f"status = 'CANCELLED', {MOVED}",
    ],
    "refunded": [f"amount_refunded = 2999, {MOVED}", f"amount_refunded = 0, {MOVED}"],
    "expired": [
        f"status = 'AUTHORIZED', {MOVED}",
        f"status = 'CANCELLED', {MOVED}",
        f"status = 'FAILED', {MOVED}",
    ],
    "expired, manual": [
        f"{CAPTURED}, amount_captured = 10000",
        f"status = 'CANCELLED', cancellation_reason = 'duplicate', {MOVED}",
        f"status = 'FAILED', {MOVED}",
    ],
}
TERMS = ["amount = 1", "currency = 'USD'", "customer_ref = 'x'", "order_id = 'x'", "created_at = now()"]
TERMS += ["capture_method = 'manual'", "expires_at = now() + interval '1 day'"]


async def payment_of_kind(api: Api, database: Database, tenant: str, kind: str) -> UUID:
    headers = api.headers(tenant, role="admin")
    soon = (datetime.now(UTC) + timedelta(seconds=0.25)).isoformat()
    match kind:
        case "created":
            payment = await created(api, headers)
        case "automatic":
            payment = await authorized(api, headers)
        case "manual" | "captured":
            payment = await authorized(api, headers, capture_method="manual")
        case "expired":
            payment = await created(api, headers, expires_at=soon)
        case "expired, manual":
            payment = await authorized(api, headers, expires_at=soon, capture_method="manual")
        case _:
            payment = await settled(api, database, tenant, headers)
    if kind == "captured":
        await act(api, headers, payment["id"], "capture", {"amount": "80.00"})
    if kind == "refunded":
        await act(api, headers, payment["id"], "refunds", {"amount": "30.00"})
    if "expired" in kind:
        await asyncio.sleep(0.3)
    return UUID(payment["id"])


async def change(database: Database, tenant: str, payment_id: UUID, changes: str) -> None:
    async with database.transaction([tenant]) as conn:
        await conn.execute(f"UPDATE payment_intents SET {changes} WHERE id = %s".encode(), [payment_id])


@pytest.mark.parametrize("kind", FORBIDDEN)
async def test_a_payment_does_not_change_like_this(api: Api, database: Database, tenant: str, kind: str) -> None:
    payment_id = await payment_of_kind(api, database, tenant, kind)
    for changes in FORBIDDEN[kind]:
        try:
            await change(database, tenant, payment_id, changes)
        except REFUSALS:
            continue
        pytest.fail(f"of what is {kind}: {changes}")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("created", f"status = 'FAILED', failure_code = 'declined', {MOVED}"),
        ("created", "description = 'Two tickets'"),
        ("manual", f"{CAPTURED}, amount_captured = 10000"),
        ("captured", f"status = 'SETTLED', amount_settled = 8000, {MOVED}"),
        ("settled", f"amount_refunded = 10000, {MOVED}"),
        ("refunded", f"amount_refunded = 10000, {MOVED}"),
        ("expired", f"status = 'CANCELLED', cancellation_reason = 'expired', {MOVED}"),
        ("expired, manual", f"status = 'CANCELLED', cancellation_reason = 'expired', {MOVED}"),
    ],
)
async def test_a_payment_does_change_like_this(
    api: Api, database: Database, tenant: str, kind: str, changes: str
) -> None:
    await change(database, tenant, await payment_of_kind(api, database, tenant, kind), changes)


@pytest.mark.parametrize("changes", TERMS)
async def test_terms_are_fixed_for_the_owner_too(api: Api, owner: Database, tenant: str, changes: str) -> None:
    payment = await created(api, api.headers(tenant))
    with pytest.raises(psycopg.errors.RestrictViolation):
        await change(owner, tenant, UUID(payment["id"]), changes)


async def insert_refund(database: Database, tenant: str, payment_id: UUID, amount: int, *, raised_by: int) -> None:
    async with database.transaction([tenant]) as conn:
        if raised_by:
            await conn.execute(
                f"UPDATE payment_intents SET amount_refunded = amount_refunded + %s, {MOVED} WHERE id = %s".encode(),
                [raised_by, payment_id],
            )
        await conn.execute(
            """
            INSERT INTO payment_refunds (tenant_id, id, payment_id, amount, currency, status, created_at)
            VALUES (%s, gen_random_uuid(), %s, %s, 'BRL', 'SUCCEEDED', now())
            """,
            [tenant, payment_id, amount],
        )


async def test_refunds_that_do_not_add_up_are_not_written(api: Api, database: Database, tenant: str) -> None:
    payment_id = await payment_of_kind(api, database, tenant, "refunded")
    for amount, raised_by in ((1, 0), (2, 1), (1, 2)):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await insert_refund(database, tenant, payment_id, amount, raised_by=raised_by)
    with pytest.raises(psycopg.errors.CheckViolation):
        await insert_refund(database, tenant, payment_id, 7001, raised_by=7001)
    await insert_refund(database, tenant, payment_id, 7000, raised_by=7000)


async def test_an_entry_gives_nothing_back_without_its_refund(database: Database, tenant: str) -> None:
    entry = Entry(tenant, uuid4(), "refund", uuid4(), "c", (Posting(REVENUE, CASH, BRL_100),))
    with pytest.raises(psycopg.errors.RestrictViolation):
        async with database.transaction([tenant]) as conn:
            await post_entries(conn, [entry])


@pytest.mark.parametrize("statement", ["UPDATE payment_refunds SET amount = 1", "DELETE FROM payment_refunds"])
async def test_refunds_are_facts(api: Api, database: Database, owner: Database, tenant: str, statement: str) -> None:
    await payment_of_kind(api, database, tenant, "refunded")
    for whose, refusal in ((owner, psycopg.errors.RestrictViolation), (database, psycopg.errors.InsufficientPrivilege)):
        with pytest.raises(refusal):
            async with whose.transaction([tenant]) as conn:
                await conn.execute(statement.encode())
