"""Books with many settled payments, written by a few statements: for queries, so outbox and audit log are left out."""

from datetime import timedelta

from bench.servers import Books

# Payments of each portion; a transaction's memory and a statement's sort stay small.
PORTION = 100_000
# Books grow because time goes by, so larger ones have more days; a million payments are a year.
PAYMENTS_A_DAY = 2740


def span_of(payments: int) -> timedelta:
    """The time that books of so many payments cover."""
    return timedelta(days=payments / PAYMENTS_A_DAY)


def fill(books: Books, payments: int) -> None:
    """Settles `payments` payments in the first tenant, evenly over the days up to now."""
    tenant_id = books.callers[0].tenant_id
    with books.superuser() as conn:
        # Rows that hold by construction need no triggers and no look-ups of foreign keys.
        conn.execute("SET session_replication_role = replica")
        conn.execute("SET synchronous_commit = off")
        conn.execute("CREATE TEMP TABLE portion (id uuid, amount bigint, at timestamptz)")
        for begin in range(0, payments, PORTION):
            portion = {
                "tenant_id": tenant_id,
                "first": begin + 1,
                "last": min(begin + PORTION, payments),
                "payments": payments,
                "span": span_of(payments),
            }
            conn.execute("TRUNCATE portion")
            for statement in (_PORTION, _PAYMENTS, _ENTRIES, _POSTINGS, _TOTALS):
                conn.execute(statement, portion)
    books.settle_down()


# Ids that grow with the number, as UUIDv7 grow with time.
_PORTION = """
    INSERT INTO portion
    SELECT lpad(to_hex(number), 32, '0')::uuid AS id, 100 + number %% 10000 AS amount,
           now() - %(span)s::interval * ((%(payments)s - number) / %(payments)s::float8) AS at
    FROM generate_series(%(first)s::bigint, %(last)s) AS number
"""
_PAYMENTS = """
    INSERT INTO payment_intents
        (tenant_id, id, amount, currency, status, version, customer_ref, created_at, updated_at)
    SELECT %(tenant_id)s, id, amount, 'BRL', 'SETTLED', 3, 'CUST-001', at, at FROM portion
"""
_ENTRIES = """
    INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id)
    SELECT %(tenant_id)s, at, id, 'settlement', id, 'corr-bench' FROM portion
"""
_POSTINGS = """
    INSERT INTO ledger_postings
        (tenant_id, posted_at, entry_id, position, debit_account, credit_account, currency, amount)
    SELECT %(tenant_id)s, at, id, 1, 'CASH', 'REVENUE', 'BRL', amount FROM portion
"""
_TOTALS = """
    INSERT INTO account_totals AS kept (tenant_id, account, currency, day, debits, credits)
    SELECT %(tenant_id)s, account, 'BRL', (at AT TIME ZONE 'UTC')::date,
           coalesce(sum(amount) FILTER (WHERE account = 'CASH'), 0),
           coalesce(sum(amount) FILTER (WHERE account = 'REVENUE'), 0)
    FROM portion CROSS JOIN unnest(ARRAY['CASH', 'REVENUE']) AS account
    GROUP BY 2, 4
    ON CONFLICT (tenant_id, account, currency, day) DO UPDATE
        SET debits = kept.debits + EXCLUDED.debits, credits = kept.credits + EXCLUDED.credits
"""
