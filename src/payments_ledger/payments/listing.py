"""Lists of payments by any filters, in pages that take as long for millions of payments as for thousands.

A page is read from one source, in its order: all payments of the tenant, or those of a customer, of some statuses, or
with a pair of metadata. What the other filters leave out is skipped. A page looks at SCANNED_MAX payments and no more,
so where nearly all of them are skipped it ends early, and the next one goes on from there (ADR 44).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from payments_ledger.ledger.period import Period
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import payment_of
from payments_ledger.postgres.database import Connection
from payments_ledger.validation.metadata import NO_METADATA

# To look at so many takes 1 to 5 ms (ADR 44).
SCANNED_MAX = 2000
EVER = Period()


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """What a payment must be to be listed: all that is given. Amounts are minor units, both bounds included."""

    statuses: Collection[Status] = ()
    customer_ref: str | None = None
    order_id: str | None = None
    currency: str | None = None
    amount_min: int | None = None
    amount_max: int | None = None
    metadata: Mapping[str, str] = NO_METADATA
    period: Period = EVER


@dataclass(frozen=True, slots=True)
class Listed:
    """Payments, newest first. Where the list may go on after fewer than a page has, `goes_on_after` is the position."""

    payments: list[Payment]
    goes_on_after: tuple[datetime, UUID] | None = None


async def list_payments(
    conn: Connection, tenant_id: str, wanted: PaymentFilter, *, after: tuple[datetime, UUID] | None, limit: int
) -> Listed:
    """Up to `limit` payments, newest first, beginning after a position (created_at, id)."""
    before, before_id = wanted.period.before(after)
    parameters = {
        "tenant_id": tenant_id,
        "start": wanted.period.start,
        "before": before,
        "before_id": before_id,
        "limit": limit,
        "statuses": [status.value for status in wanted.statuses],
        "customer_ref": wanted.customer_ref,
        "order_id": wanted.order_id,
        "currency": wanted.currency,
        "amount_min": wanted.amount_min,
        "amount_max": wanted.amount_max,
        "keys": list(wanted.metadata),
        "values": list(wanted.metadata.values()),
    }
    sources = list(_sources(wanted, has_end=before is not None))
    source = sources[0] if len(sources) == 1 else await _narrowest(conn, sources, parameters)
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(_page(source, wanted), parameters)
    rows = await cursor.fetchall()
    payments = [payment_of(row) for row in rows if row["is_wanted"]]
    if len(payments) < limit and rows and rows[-1]["place"] == SCANNED_MAX:
        return Listed(payments, (rows[-1]["created_at"], rows[-1]["id"]))
    return Listed(payments)


@dataclass(frozen=True, slots=True)
class _Source:
    """A statement that finds payments in the order of the list, by an index; or only their ids, from another table."""

    statement: str
    has_ids_only: bool = False


def _sources(wanted: PaymentFilter, *, has_end: bool) -> Iterator[_Source]:
    """Each finds all that is wanted, and by other filters something else, which is skipped.

    Conditions that do not hold are left out, rather than made true by a parameter (`coalesce`, `IS NULL OR`): under
    row-level security no index is used for those, once a prepared statement has a plan for any parameters.
    """
    begin = "AND created_at >= %(start)s" if wanted.period.start else ""

    def of_payments(condition: str = "") -> _Source:
        end = "AND (created_at, id) < (%(before)s, %(before_id)s)" if has_end else ""
        return _Source(
            f"""
            SELECT *
            FROM payment_intents
            WHERE tenant_id = %(tenant_id)s {condition} {begin} {end}
            ORDER BY created_at DESC, id DESC"""  # noqa: S608
        )

    def of_ids(table: str, *conditions: str) -> _Source:
        """Of the rows that meet any of the conditions, each of which an index serves."""
        end = "AND (created_at, payment_id) < (%(before)s, %(before_id)s)" if has_end else ""
        parts = " UNION ALL ".join(
            f"""(
                SELECT created_at, payment_id AS id
                FROM {table}
                WHERE tenant_id = %(tenant_id)s AND {condition} {begin} {end}
                ORDER BY created_at DESC, payment_id DESC
                LIMIT {SCANNED_MAX})"""  # noqa: S608
            for condition in conditions
        )
        return _Source(f"SELECT * FROM ({parts}) AS part ORDER BY created_at DESC, id DESC", has_ids_only=True)  # noqa: S608

    if wanted.order_id is not None:
        # One payment at most.
        yield of_payments("AND order_id = %(order_id)s")
        return
    for number in range(1, len(wanted.metadata) + 1):
        pair = f"metadata_pair((%(keys)s::text[])[{number}], (%(values)s::text[])[{number}])"
        yield of_ids("payment_metadata", f"pair = {pair}")
    if wanted.customer_ref is not None:
        yield of_payments("AND customer_ref = %(customer_ref)s")
    if wanted.statuses and Status.SETTLED not in wanted.statuses:
        yield of_ids("unsettled_payments", *(f"status = '{status}'" for status in sorted(set(wanted.statuses))))
    elif not wanted.metadata and wanted.customer_ref is None:
        yield of_payments()


async def _narrowest(conn: Connection, sources: Sequence[_Source], parameters: Mapping[str, Any]) -> _Source:
    """The source that finds the fewest, or the first of those that find SCANNED_MAX."""
    counts = ", ".join(
        f"(SELECT count(*) FROM (SELECT 1 FROM ({source.statement}) AS found LIMIT {SCANNED_MAX}) AS counted)"  # noqa: S608
        for source in sources
    )
    cursor = await conn.cursor(binary=True).execute(f"SELECT {counts}".encode(), parameters)
    found = await cursor.fetchone()
    assert found is not None
    return sources[min(range(len(sources)), key=found.__getitem__)]


_CONDITIONS = {
    "statuses": "payment.status = ANY (%(statuses)s::text[])",
    "customer_ref": "payment.customer_ref = %(customer_ref)s",
    "order_id": "payment.order_id = %(order_id)s",
    "currency": "payment.currency = %(currency)s",
    "amount_min": "payment.amount >= %(amount_min)s",
    "amount_max": "payment.amount <= %(amount_max)s",
}


def _conditions(wanted: PaymentFilter) -> Iterator[str]:
    for name, condition in _CONDITIONS.items():
        if getattr(wanted, name) not in (None, ()):
            yield condition
    for number in range(1, len(wanted.metadata) + 1):
        yield f"payment.metadata ->> (%(keys)s::text[])[{number}] = (%(values)s::text[])[{number}]"


def _page(source: _Source, wanted: PaymentFilter) -> bytes:
    """The statement of a page; with the last payment that was looked at, wanted or not, if there may be more."""
    found = f"""(
            SELECT *, row_number() OVER (ORDER BY created_at DESC, id DESC) AS place
            FROM ({source.statement}) AS found
            LIMIT {SCANNED_MAX})"""  # noqa: S608
    if source.has_ids_only:
        ordered = "listed"
        rows = f"""{found} AS listed
        JOIN payment_intents AS payment ON payment.tenant_id = %(tenant_id)s AND payment.id = listed.id"""
    else:
        ordered = "payment"
        rows = f"{found} AS payment"
    return f"""
        SELECT payment.*, place, is_wanted
        FROM {rows}
        CROSS JOIN LATERAL (SELECT {" AND ".join(_conditions(wanted)) or "true"} AS is_wanted) AS judged
        WHERE is_wanted OR place = {SCANNED_MAX}
        ORDER BY {ordered}.created_at DESC, {ordered}.id DESC
        LIMIT %(limit)s
        """.encode()  # noqa: S608
