"""Books with many payments, written by a few statements: for queries, so outbox and audit log are left out."""

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
    _fill(books, payments, (_PAYMENTS, _ENTRIES, _POSTINGS, _TOTALS))


def fill_lists(books: Books, payments: int) -> None:
    """Payments as `fill`, without entries, but of many customers, in all statuses, and some with metadata.

    Of a thousand payments 30 are CREATED, 20 CANCELLED; of 20,000 one is AUTHORIZED; of 50,000 one FAILED. A third is
    of one customer, the others of 20,000. One in five has metadata.
    """
    _fill(books, payments, (_VARIED_PAYMENTS, _UNSETTLED, _METADATA))


def _fill(books: Books, payments: int, statements: tuple[str, ...]) -> None:
    tenant_id = books.callers[0].tenant_id
    with books.superuser() as conn:
        # Rows that hold by construction need no triggers and no look-ups of foreign keys.
        conn.execute("SET session_replication_role = replica")
        conn.execute("SET synchronous_commit = off")
        conn.execute("CREATE TEMP TABLE portion (number bigint, id uuid, amount bigint, at timestamptz)")
        for begin in range(0, payments, PORTION):
            portion = {
                "tenant_id": tenant_id,
                "first": begin + 1,
                "last": min(begin + PORTION, payments),
                "payments": payments,
                "span": span_of(payments),
            }
            conn.execute("TRUNCATE portion")
            for statement in (_PORTION, *statements):
                conn.execute(statement, portion)
    books.settle_down()


# Ids that grow with the number, as UUIDv7 grow with time.
_PORTION = """
    INSERT INTO portion
    SELECT number, lpad(to_hex(number), 32, '0')::uuid AS id, 100 + number %% 10000 AS amount,
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
_VARIED_PAYMENTS = """
    INSERT INTO payment_intents
        (tenant_id, id, amount, currency, status, version, customer_ref, created_at, updated_at, metadata)
    SELECT %(tenant_id)s, id, amount, CASE WHEN number %% 1009 = 0 THEN 'KWD' ELSE 'BRL' END,
           CASE WHEN number %% 20000 = 11 THEN 'AUTHORIZED' WHEN number %% 50000 = 17 THEN 'FAILED'
                WHEN number * 7919 %% 1000 < 30 THEN 'CREATED' WHEN number * 7919 %% 1000 < 50 THEN 'CANCELLED'
                ELSE 'SETTLED' END,
           3, CASE WHEN number %% 3 = 0 THEN 'CUST-ONE' ELSE 'CUST-' || number %% 20000 END, at, at,
           CASE WHEN number %% 5 = 0 THEN json_build_object('channel', 'web', 'cart', 'A-' || number) END
    FROM portion
"""
_UNSETTLED = """
    INSERT INTO unsettled_payments (tenant_id, status, created_at, payment_id)
    SELECT tenant_id, status, created_at, payment_intents.id
    FROM portion
    JOIN payment_intents ON tenant_id = %(tenant_id)s AND payment_intents.id = portion.id
    WHERE status <> 'SETTLED'
"""
_METADATA = """
    INSERT INTO payment_metadata (tenant_id, pair, created_at, payment_id)
    SELECT tenant_id, metadata_pair(key, value), created_at, payment_intents.id
    FROM portion
    JOIN payment_intents ON tenant_id = %(tenant_id)s AND payment_intents.id = portion.id
    CROSS JOIN LATERAL json_each_text(metadata)
"""
