"""Exporting the books of a tenant: part by part, from whatever snapshot the transaction has."""

from collections.abc import Callable
from datetime import date

from payments_ledger.ledger.accounts import Account
from payments_ledger.ledger.chart.queries import AccountFilter, list_accounts
from payments_ledger.ledger.exports import queries
from payments_ledger.ledger.exports.export import Opening, Writer
from payments_ledger.ledger.period import Period
from payments_ledger.postgres.database import Connection

# Entries of a part: some 4 MB in memory, and a row group of a Parquet file that compresses well.
ENTRIES_AT_ONCE = 5_000
ACCOUNTS_AT_ONCE = 10_000


async def export_books(
    conn: Connection,
    tenant_id: str,
    period: Period,
    writer: Writer,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes all entries that were recorded in the period, and returns how many; `report` hears how many are done.

    The transaction must be REPEATABLE READ, so that all parts are of one moment.
    """
    extent = await queries.measure(conn, tenant_id, period)
    accounts = await _all_accounts(conn, tenant_id)
    first_day = extent.first_day or date(1970, 1, 1)
    writer.begin(Opening(tenant_id, accounts, extent.currencies, first_day))
    done, after = 0, None
    report(done, extent.entries)
    while entries := await queries.list_exported_entries(conn, tenant_id, period, after=after, limit=ENTRIES_AT_ONCE):
        writer.write(entries)
        done += len(entries)
        after = entries[-1].recorded_at, entries[-1].id
        report(done, extent.entries)
    writer.end()
    return done


async def _all_accounts(conn: Connection, tenant_id: str) -> list[Account]:
    accounts: list[Account] = []
    while page := await list_accounts(
        conn, tenant_id, AccountFilter(), after=accounts[-1].code if accounts else None, limit=ACCOUNTS_AT_ONCE
    ):
        accounts += page
    return accounts
