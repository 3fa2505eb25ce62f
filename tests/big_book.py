"""A big book in minutes: payments of every kind with all that belongs to them, as the engine would have written them.

For what only shows with many rows: the audit, plans, partitions. Nothing but set-based SQL, as the schema's owner; two
fills with the same arguments differ only in their tenants and in the time they are laid at.
"""

import argparse
import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg

from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Connection, Database, driver_url

# It refuses a payment that begins anywhere but at CREATED, and is set aside while the book is written.
SET_ASIDE = "payment_begins_created"


@dataclass(frozen=True, slots=True)
class BigBook:
    """What was filled in: these tenants' payments, `settled` of them, the last one created at `until`."""

    tenants: tuple[str, ...]
    payments: int
    settled: int
    until: datetime


def fill(
    database_url: str, *, payments: int, tenants: int = 10, days: int = 30, until: datetime | None = None
) -> BigBook:
    """Adds fresh tenants that share so many payments, created evenly over the days before `until` (an hour ago).

    Of a hundred payments 3 are CREATED, 2 CANCELLED, the others SETTLED and one of those refunded; in BRL, USD and JPY.
    All have their entries, postings, totals, published events, idempotency keys (created and confirmed) and audit rows.
    One in ten is an order's; one in ten was confirmed a second time and refused; each is in a kept answer of 1,000.
    """
    until = until or datetime.now(UTC) - timedelta(hours=1)
    names = tuple(f"book-{uuid4().hex[:12]}-{number:04d}" for number in range(tenants))
    asyncio.run(_add_tenants(database_url, names))
    with psycopg.connect(driver_url(database_url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [",".join(names)])
        conn.execute("SET LOCAL work_mem = '256MB'")
        conn.execute("SET LOCAL synchronous_commit = off")
        conn.execute(f"ALTER TABLE payment_intents DISABLE TRIGGER {SET_ASIDE}".encode())
        conn.execute(
            _BOOK,
            {"tenants": list(names), "payments": payments, "step": timedelta(days=days) / payments, "until": until},
        )
        conn.execute("ANALYZE book")
        for statement in _ROWS:
            conn.execute(statement)
        conn.execute(f"ALTER TABLE payment_intents ENABLE TRIGGER {SET_ASIDE}".encode())
        row = conn.execute("SELECT count(*) FILTER (WHERE status = 'SETTLED') FROM book").fetchone()
        assert row is not None
        conn.execute("DROP TABLE book")
    with psycopg.connect(driver_url(database_url), autocommit=True) as conn:
        # What autovacuum would do in a while: plans need statistics, index-only scans the visibility map.
        for table in _TABLES:
            conn.execute(f"VACUUM ANALYZE {table}".encode())
    return BigBook(names, payments, row[0], until)


async def _add_tenants(database_url: str, names: tuple[str, ...]) -> None:
    database = Database(database_url, role=None, pool_size_max=2)
    await database.open()
    try:
        async with database.transaction(names) as conn:
            for name in names:
                await _add_tenant(conn, name)
    finally:
        await database.close()


async def _add_tenant(conn: Connection, name: str) -> None:
    await add_tenant(conn, name, "A tenant of a big book")
    await insert_accounts(conn, name, DEFAULT_ACCOUNTS)


_TABLES = (
    "payment_intents",
    "orders",
    "ledger_entries",
    "ledger_postings",
    "account_totals",
    "outbox_events",
    "idempotency_keys",
    "audit_log",
)

# A UUIDv7 (RFC 9562) of a time; the rest is a digest of what it is for, so that a fill is the same each time.
_UUID7 = """
    (lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5({salt}), 1, 3)
     || '9' || substr(md5({salt}), 4, 15))::uuid
"""


def _uuid7(at: str, salt: str) -> str:
    return _UUID7.format(at=at, salt=salt)


# One row a payment, from which all others follow. The moves are half a second apart, a refund comes an hour later.
_BOOK = f"""
    CREATE TEMPORARY TABLE book ON COMMIT DROP AS
    SELECT tenant_id, number, {_uuid7("created_at", "tenant_id || number")} AS id, amount, currency,
           CASE currency WHEN 'JPY' THEN amount::text
                         ELSE (amount / 100)::text || '.' || lpad((amount %% 100)::text, 2, '0') END AS shown,
           CASE WHEN number %% 10 = 0 THEN 'order-' || number END AS order_id,
           CASE WHEN number %% 10 = 0 THEN 'order:order-' || number
                ELSE 'CUST-' || number %% 1000 END AS customer_ref, 'corr-' || number AS correlation_id,
           CASE WHEN die < 3 THEN 'CREATED' WHEN die < 5 THEN 'CANCELLED' ELSE 'SETTLED' END AS status,
           die = 5 AS refunded,
           created_at,
           CASE WHEN die > 3 THEN created_at + interval '0.5 seconds' END AS authorized_at,
           CASE WHEN die >= 3 THEN created_at + interval '1 second' END AS ended_at
    FROM (
        SELECT number, (%(tenants)s::text[])[number %% cardinality(%(tenants)s::text[]) + 1] AS tenant_id,
               1 + number * 7919::bigint %% 1000000 AS amount,
               (hashint8(number) & 1023) %% 100 AS die,
               CASE hashint8(number) & 7 WHEN 0 THEN 'USD' WHEN 1 THEN 'JPY' ELSE 'BRL' END AS currency,
               %(until)s::timestamptz - number * %(step)s::interval AS created_at
        FROM generate_series(%(payments)s - 1, 0, -1) AS number
    ) AS payment
"""

_MOVES = """
    SELECT book.*, move.*
    FROM book
    CROSS JOIN LATERAL (
        VALUES (1, 'CREATED', 'payment.intent.created', 'payment.create', NULL, created_at),
               (2, 'AUTHORIZED', 'payment.authorized', 'payment.authorize', 'CREATED', authorized_at),
               (CASE WHEN authorized_at IS NULL THEN 2 ELSE 3 END, book.status,
                CASE book.status WHEN 'SETTLED' THEN 'payment.settled' ELSE 'payment.cancelled' END,
                CASE book.status WHEN 'SETTLED' THEN 'payment.settle' ELSE 'payment.cancel' END,
                CASE WHEN authorized_at IS NULL THEN 'CREATED' ELSE 'AUTHORIZED' END, ended_at),
               (4, 'SETTLED', 'payment.refunded', 'payment.refund', 'SETTLED',
                CASE WHEN refunded THEN ended_at + interval '1 hour' END)
    ) AS move (sequence, told, event_type, action, before, at)
    WHERE at IS NOT NULL
"""

_REFUND_ID = _uuid7("ended_at + interval '1 hour'", "tenant_id || number || 'refund of'")

_POSTED = f"""
    SELECT tenant_id, CASE kind WHEN 'refund' THEN {_REFUND_ID} ELSE id END AS source_id,
           CASE kind WHEN 'refund' THEN id END AS subject_id, kind, at AS posted_at, correlation_id, currency, amount,
           debit, credit, {_uuid7("at", "tenant_id || number || kind")} AS entry_id
    FROM book
    CROSS JOIN LATERAL (
        VALUES ('settlement', ended_at, 'CASH', 'REVENUE'),
               ('refund', CASE WHEN refunded THEN ended_at + interval '1 hour' END, 'REVENUE', 'CASH')
    ) AS entry (kind, at, debit, credit)
    WHERE status = 'SETTLED' AND at IS NOT NULL
"""

# As the route writes it.
_BODY = """
    convert_to('{{"id":"' || id || '","amount":"' || shown || '","currency":"' || currency || '","status":"{status}'
               || '","customer_ref":"' || customer_ref || '","created_at":"' || {created_at} || '","updated_at":"'
               || {updated_at} || '"}}', 'UTF8')
"""


def _iso(at: str) -> str:
    return f"""to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_ROWS = (
    """
    INSERT INTO payment_intents
        (tenant_id, id, amount, currency, status, version, customer_ref, order_id, created_at, updated_at,
         amount_refunded)
    SELECT tenant_id, id, amount, currency, status, 1 + num_nonnulls(authorized_at, ended_at) + refunded::integer,
           customer_ref, order_id, created_at,
           coalesce(ended_at, created_at) + CASE WHEN refunded THEN interval '1 hour' ELSE '0' END,
           CASE WHEN refunded THEN amount ELSE 0 END
    FROM book
    """,
    f"""
    INSERT INTO payment_refunds (tenant_id, id, payment_id, amount, currency, status, reason, created_at)
    SELECT tenant_id, {_REFUND_ID}, id, amount, currency, 'SUCCEEDED',
           CASE WHEN order_id IS NOT NULL THEN 'order_cancelled' END, ended_at + interval '1 hour'
    FROM book
    WHERE refunded
    """,
    """
    INSERT INTO orders (tenant_id, order_id, cancelled_at, created_at)
    SELECT tenant_id, order_id, CASE WHEN status = 'CANCELLED' OR refunded THEN ended_at END, created_at
    FROM book WHERE order_id IS NOT NULL
    """,
    f"""
    INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, subject_id, correlation_id)
    SELECT tenant_id, posted_at, entry_id, kind, source_id, subject_id, correlation_id FROM ({_POSTED}) AS posted
    """,
    f"""
    INSERT INTO ledger_postings
        (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
    SELECT tenant_id, posted_at, entry_id, 1, debit, credit, currency, amount FROM ({_POSTED}) AS posted
    """,
    f"""
    INSERT INTO account_totals (tenant_id, account, currency, day, debits, credits)
    SELECT tenant_id, account, currency, (posted_at AT TIME ZONE 'UTC')::date AS day, sum(debits), sum(credits)
    FROM ({_POSTED}) AS posted
    CROSS JOIN LATERAL (VALUES (debit, amount, 0), (credit, 0, amount)) AS side (account, debits, credits)
    GROUP BY tenant_id, account, currency, day
    """,
    f"""
    INSERT INTO outbox_events
        (tenant_id, id, event_type, aggregate_id, sequence, payload, headers, created_at, attempts, next_attempt_at,
         published_at)
    SELECT tenant_id, {_uuid7("at", "tenant_id || number || event_type")}, event_type, id, sequence,
           ('{{"payment_intent_id":"' || id || '","tenant_id":"' || tenant_id || '","status":"' || told
            || '","amount":"' || shown || '","currency":"' || currency || '","customer_ref":"' || customer_ref
            || '","order_id":' || coalesce('"' || order_id || '"', 'null')
            || ',"correlation_id":"' || correlation_id || '","occurred_at":"' || {_iso("at")}
            || CASE event_type WHEN 'payment.refunded' THEN
                   '","refund_id":"' || {_REFUND_ID} ELSE '' END
            || '"}}')::json,
           ('{{"X-Correlation-Id": "' || correlation_id || '", "X-Tenant-Id": "' || tenant_id || '"}}')::json,
           at, 1, at, at + interval '0.1 seconds'
    FROM ({_MOVES}) AS moves
    ORDER BY at
    """,
    f"""
    INSERT INTO audit_log (tenant_id, id, at, principal, address, action, target, correlation_id, detail)
    SELECT tenant_id, {_uuid7("at", "tenant_id || number || action")}, at, 'book', '127.0.0.1', action, id::text,
           correlation_id,
           ('{{"before": ' || coalesce('{{"status": "' || before || '"}}', 'null') || ', "after": {{"status": "' || told
            || '"}}, "amount": "' || shown || ' ' || currency || '"}}')::json
    FROM ({_MOVES}) AS moves
    ORDER BY at
    """,
    f"""
    INSERT INTO idempotency_keys
        (tenant_id, principal, route, key, fingerprint, status, location, body, created_at, expires_at)
    SELECT tenant_id, 'book', 'POST /v1/payment-intents', 'create-' || number, '\\x00'::bytea, 201,
           '/v1/payment-intents/' || id,
           {_BODY.format(status="CREATED", created_at=_iso("created_at"), updated_at=_iso("created_at"))},
           created_at, now() + interval '1 day'
    FROM book
    UNION ALL
    SELECT tenant_id, 'book', 'POST /v1/payment-intents/' || id || '/confirm', 'confirm-' || number, '\\x00'::bytea,
           200, NULL,
           {_BODY.format(status="AUTHORIZED", created_at=_iso("created_at"), updated_at=_iso("authorized_at"))},
           authorized_at, now() + interval '1 day'
    FROM book WHERE authorized_at IS NOT NULL
    UNION ALL
    SELECT tenant_id, 'book', 'POST /v1/payment-intents/' || id || '/confirm', 'again-' || number, '\\x00'::bytea,
           409, NULL,
           convert_to('{{"type":"about:blank","title":"Conflict","status":409,"detail":"It is AUTHORIZED already."'
                      || ',"instance":"/v1/payment-intents/' || id || '/confirm","code":"already_moved"'
                      || ',"correlation_id":"' || correlation_id || '"}}', 'UTF8'),
           authorized_at, now() + interval '1 day'
    FROM book WHERE authorized_at IS NOT NULL AND number % 10 = 1
    UNION ALL
    SELECT tenant_id, 'book', 'POST /v1/payment-intents/batch', 'batch-' || number / 1000, '\\x00'::bytea, 200, NULL,
           convert_to('{{"outcomes":[' || string_agg('{{"status":201,"payment_intent":' || convert_from(
               {_BODY.format(status="CREATED", created_at=_iso("created_at"), updated_at=_iso("created_at"))}, 'UTF8')
               || '}}', ',' ORDER BY number) || ']}}', 'UTF8'),
           min(created_at), now() + interval '1 day'
    FROM book GROUP BY tenant_id, number / 1000
    """,
)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database_url")
    parser.add_argument("--payments", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=10)
    arguments = parser.parse_args()
    print(fill(arguments.database_url, payments=arguments.payments, tenants=arguments.tenants))  # noqa: T201
