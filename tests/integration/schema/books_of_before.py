"""Payments as former versions of the program wrote them, for migrations that find them: plain SQL, no use case."""

import json
from uuid import UUID

from uuid_utils.compat import uuid7

from payments_ledger.postgres.database import Connection, Database

ORIGIN = {"X-Correlation-Id": "corr-before"}
# Each status with the steps that lead there: its event, its audit action, and what the row says then.
STEPS = (
    ("CREATED", "payment.intent.created", "payment.create"),
    ("AUTHORIZED", "payment.authorized", "payment.authorize"),
    ("SETTLED", "payment.settled", "payment.settle"),
)
CANCELLED = ("CANCELLED", "payment.cancelled", "payment.cancel")


async def tenant_of_before(owner: Database, tenant: str) -> None:
    """A tenant with the accounts that payments post to."""
    async with owner.transaction([tenant]) as conn:
        await conn.execute("INSERT INTO tenants (tenant_id, name, plan, region) VALUES (%s, 'x', 'x', 'x')", [tenant])
        await conn.execute(
            "INSERT INTO accounts (tenant_id, code, name, type) VALUES (%s, 'CASH', 'x', 'asset')", [tenant]
        )
        await conn.execute(
            "INSERT INTO accounts (tenant_id, code, name, type) VALUES (%s, 'REVENUE', 'x', 'revenue')", [tenant]
        )


async def payment_of_before(books: Database, tenant: str, status: str = "SETTLED", *, refunded: bool = False) -> UUID:
    """A payment of BRL 100.00, CUST-1, that has come to this status, its whole amount given back if `refunded`."""
    payment_id = uuid7()
    steps = [STEPS[0], CANCELLED] if status == "CANCELLED" else STEPS[: [s for s, _, _ in STEPS].index(status) + 1]
    for version, (after, event, action) in enumerate(steps, start=1):
        async with books.transaction([tenant]) as conn:
            if version == 1:
                await conn.execute(
                    """
                    INSERT INTO payment_intents
                        (tenant_id, id, amount, currency, status, version, customer_ref, created_at, updated_at)
                    VALUES (%s, %s, 10000, 'BRL', 'CREATED', 1, 'CUST-1', now(), now())
                    """,
                    [tenant, payment_id],
                )
            else:
                await conn.execute(
                    "UPDATE payment_intents SET status = %s, version = %s, updated_at = now() WHERE id = %s",
                    [after, version, payment_id],
                )
            before = steps[version - 2][0] if version > 1 else None
            await _told(conn, tenant, payment_id, version, event, action, before, after)
            if after == "SETTLED":
                await _posted(conn, tenant, payment_id, "settlement", "CASH", "REVENUE")
    if refunded:
        async with books.transaction([tenant]) as conn:
            refund_id = await _posted(conn, tenant, payment_id, "refund", "REVENUE", "CASH")
            await _told(
                conn, tenant, payment_id, 4, "payment.refunded", "payment.refund", "SETTLED", "SETTLED", refund_id
            )
    return payment_id


async def _told(
    conn: Connection,
    tenant: str,
    payment_id: UUID,
    sequence: int,
    event: str,
    action: str,
    before: str | None,
    after: str,
    refund_id: UUID | None = None,
) -> None:
    body = {
        "payment_intent_id": str(payment_id),
        "tenant_id": tenant,
        "status": after,
        "amount": "100.00",
        "currency": "BRL",
        "customer_ref": "CUST-1",
        "order_id": None,
        "correlation_id": "corr-before",
        "occurred_at": "2026-01-31T12:00:00Z",
    } | ({"refund_id": str(refund_id)} if refund_id else {})
    await conn.execute(
        """
        INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        [tenant, uuid7(), event, payment_id, sequence, json.dumps(body), json.dumps(ORIGIN | {"X-Tenant-Id": tenant})],
    )
    detail = {"before": {"status": before} if before else None, "after": {"status": after}, "amount": "100.00 BRL"}
    await conn.execute(
        """
        INSERT INTO audit_log (tenant_id, id, principal, action, target, correlation_id, detail)
        VALUES (%s, %s, 'tester', %s, %s, 'corr-before', %s)
        """,
        [tenant, uuid7(), action, str(payment_id), json.dumps(detail)],
    )


async def _posted(
    conn: Connection, tenant: str, payment_id: UUID, kind: str, debit_account: str, credit_account: str
) -> UUID:
    entry_id = uuid7()
    await conn.execute(
        """
        INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id)
        VALUES (%s, now(), %s, %s, %s, 'corr-before')
        """,
        [tenant, entry_id, kind, payment_id],
    )
    await conn.execute(
        """
        INSERT INTO ledger_postings
            (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
        VALUES (%s, now(), %s, 1, %s, %s, 'BRL', 10000)
        """,
        [tenant, entry_id, debit_account, credit_account],
    )
    for account, debited, credited in ((debit_account, 10000, 0), (credit_account, 0, 10000)):
        await conn.execute(
            """
            INSERT INTO account_totals AS kept (tenant_id, account, currency, day, debits, credits)
            VALUES (%s, %s, 'BRL', (now() AT TIME ZONE 'UTC')::date, %s, %s)
            ON CONFLICT (tenant_id, account, currency, day) DO UPDATE
                SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits
            """,
            [tenant, account, debited, credited],
        )
    return entry_id
