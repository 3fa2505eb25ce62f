"""Lists of payments by filters, in books of ten thousand payments and of many more; and refunds, of many and of one."""

from datetime import UTC, datetime
from urllib.parse import urlencode

from bench import big_books
from bench.servers import Books

# How many of the settled payments are refunded in turn. Of each there is more to give back than a run asks for.
REFUNDED_PAYMENTS = 5000

TITLES = {
    "first": "payments, first page",
    "deep": "payments, from the middle of the books on",
    "authorized": "AUTHORIZED payments, one in 20,000",
    "customer": "payments of a customer who has a third",
    "pair": "payments with a pair of metadata that a fifth has",
    "cart": "the payment with a pair of metadata of its own",
    "combined": "a customer's CREATED payments from BRL 10.00 on",
    "rare": "payments in a currency that one in 1,009 is in",
}


def paths(payments: int) -> dict[str, str]:
    """Path and query of each of TITLES."""
    middle = (datetime.now(UTC) - big_books.span_of(payments) / 2).isoformat()
    queries: tuple[dict[str, str], ...] = (
        {},
        {"to": middle},
        {"status": "AUTHORIZED"},
        {"customer_ref": "CUST-ONE"},
        {"metadata.channel": "web"},
        {"metadata.cart": "A-5000"},
        {"customer_ref": "CUST-ONE", "status": "CREATED", "currency": "BRL", "amount_min": "10.00"},
        {"currency": "KWD"},
    )
    return {name: f"/v1/payment-intents?{urlencode(query)}" for name, query in zip(TITLES, queries, strict=True)}


def refundable(books: Books) -> list[str]:
    """The ids of settled payments, and the first tenant's user is let refund them."""
    caller = books.callers[0]
    with books.superuser() as conn:
        conn.execute(
            "INSERT INTO user_roles (tenant_id, user_id, role) VALUES (%s, %s, 'finance') ON CONFLICT DO NOTHING",
            [caller.tenant_id, caller.user_id],
        )
        cursor = conn.execute(
            """
            SELECT id::text FROM payment_intents
            WHERE tenant_id = %s AND status = 'SETTLED' AND currency = 'BRL' AND amount > 9000
            ORDER BY created_at LIMIT %s
            """,
            [caller.tenant_id, REFUNDED_PAYMENTS],
        )
        return [payment_id for (payment_id,) in cursor.fetchall()]
