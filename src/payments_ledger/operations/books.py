"""The books in the operator's hands: a statement, a report, and an export, each from one snapshot."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

from payments_ledger.ledger.currencies import load_currencies
from payments_ledger.ledger.exports.export import Format, Writer
from payments_ledger.ledger.exports.journals import BeancountWriter, HledgerWriter
from payments_ledger.ledger.exports.tables import CsvWriter, ParquetWriter
from payments_ledger.ledger.exports.use_cases import export_books
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.reports import use_cases
from payments_ledger.ledger.reports.moment import Span
from payments_ledger.ledger.reports.report import Report, ReportName
from payments_ledger.ledger.reports.statement import Continuation
from payments_ledger.ledger.reports.use_cases import Statement, StatementWanted
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.tenants.queries import require_tenant

# All of a command sees one moment, however long it takes, and none of it can change anything.
SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "30min",
    # While a part is written, the database waits.
    "idle_in_transaction_session_timeout": "0",
}


@asynccontextmanager
async def reading(database_url: str, tenant_id: str) -> AsyncIterator[Connection]:
    """A transaction that sees one moment of the tenant's books. Raises UnknownTenant or Unavailable."""
    database = Database(database_url, role=None, pool_size_max=1, server_settings=SERVER_SETTINGS)
    await database.open()
    try:
        async with database.transaction([tenant_id]) as conn:
            await require_tenant(conn, tenant_id)
            await load_currencies(conn)
            yield conn
    finally:
        await database.close()


async def statement(database_url: str, tenant_id: str, wanted: StatementWanted, *, at_once: int = 1000) -> Statement:
    """All lines of it. Raises what make_statement raises, UnknownTenant and Unavailable."""
    async with reading(database_url, tenant_id) as conn:
        first, has_more = await use_cases.make_statement(conn, tenant_id, wanted, at_once)
        lines = list(first.lines)
        while has_more:
            continued = Continuation(wanted.code, lines[-1].place(wanted.by), lines[-1].balance)
            next_wanted = StatementWanted(wanted.code, first.currency, wanted.by, wanted.start, wanted.end, continued)
            page, has_more = await use_cases.make_statement(conn, tenant_id, next_wanted, at_once)
            lines += page.lines
    return Statement(first.account, first.currency, first.by, first.start, first.end, first.opening, lines)


async def report(
    database_url: str, tenant_id: str, name: ReportName, span: Span, *, currency: str | None, depth: int | None
) -> Report:
    """Raises what the report's use case raises, UnknownTenant and Unavailable."""
    async with reading(database_url, tenant_id) as conn:
        return await use_cases.report(conn, tenant_id, name, span, currency=currency, depth=depth)


async def export(
    database_url: str,
    tenant_id: str,
    format_: Format,
    path: Path,
    period: Period,
    report_progress: Callable[[int, int], None],
) -> int:
    """Writes the books to a file, which appears when it is complete; returns how many entries it holds.

    Raises UnknownTenant, Unavailable, OSError, or ImportError where Parquet is not installed.
    """
    async with reading(database_url, tenant_id) as conn:
        with _writing(path, format_) as writer:
            return await export_books(conn, tenant_id, period, writer, report=report_progress)


@contextmanager
def _writing(path: Path, format_: Format) -> Iterator[Writer]:
    """A writer to a file beside the path, which takes its place if nothing is raised and is removed otherwise."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        if format_ is Format.PARQUET:
            yield ParquetWriter(partial)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                yield _text_writer(format_, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _text_writer(format_: Format, file: TextIO) -> Writer:
    match format_:
        case Format.BEANCOUNT:
            return BeancountWriter(file)
        case Format.HLEDGER:
            return HledgerWriter(file)
        case _:
            return CsvWriter(file)
