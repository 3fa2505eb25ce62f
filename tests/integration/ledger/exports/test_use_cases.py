"""Exports are read by the programs that they are for, which find the balances that we have."""

import asyncio
import csv
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from beancount import loader
from beancount.core.data import Transaction
from pyarrow import parquet

from payments_ledger.errors import UnknownTenant
from payments_ledger.ledger.exports import use_cases
from payments_ledger.ledger.exports.export import Format
from payments_ledger.ledger.period import Period
from payments_ledger.operations import books as operations
from payments_ledger.postgres.database import Database
from tests.integration.books import settle_a_payment
from tests.integration.ledger.journal import Journal

pytestmark = pytest.mark.anyio

EVERYTHING = Period()
# By account and currency: debits less credits.
type Balances = Mapping[tuple[str, str], Decimal]


@pytest.fixture
async def books(journal: Journal, database: Database, tenant: str) -> Journal:
    """A payment, backdated and reversed transactions, and texts that could break out of their places."""
    for code, type_ in (
        ("BANK", "asset"),
        ("BANK.MAIN_1", "asset"),
        ("WALLET.C_1", "liability"),
        ("CAPITAL", "equity"),
        ("COSTS", "expense"),
    ):
        await journal.account(code, type_)
    await settle_a_payment(database, tenant)
    await journal.move("BANK.MAIN_1", "CAPITAL", "1000.00", effective_at="1999-12-31T23:00:00Z")
    await journal.move("BANK", "WALLET.C_1", "500", currency="JPY", description='a "quoted" \\ text; and (more) | so')
    await journal.move("COSTS", "BANK.MAIN_1", "0.01", description="* ! (", reference='r;"\\,x')
    await journal.move("BANK", "WALLET.C_1", "1.250", currency="KWD")
    wrong = await journal.move("BANK", "WALLET.C_1", "7.00")
    await journal.end(wrong, "reverse", {"effective_at": "original"})
    return journal


async def export(url: str, tenant: str, format_: Format, folder: Path, period: Period = EVERYTHING) -> Path:
    path = folder / f"books.{format_}"
    heard: list[tuple[int, int]] = []
    entries = await operations.export(url, tenant, format_, path, period, lambda *done: heard.append(done))
    assert heard[-1] == (entries, entries)
    assert names_in(folder) == [path.name]
    return path


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def output_of(*command: str) -> str:
    """What a program prints that finds nothing to complain about."""
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        check=False,
        capture_output=True,
        text=True,
        # hledger reads files in the encoding of its locale.
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ROOTS = {
    "asset": "Assets",
    "liability": "Liabilities",
    "equity": "Equity",
    "revenue": "Income",
    "expense": "Expenses",
}


async def our_balances(journal: Journal) -> Balances:
    rows = (await journal.get("/v1/ledger/reports/trial-balance")).json()["rows"]
    return {
        (f"{ROOTS[row['type']]}:{row['account'].replace('.', ':')}", row["currency"]): balance
        for row in rows
        if (balance := Decimal(row["debits"]) - Decimal(row["credits"]))
    }


async def test_beancount_finds_no_fault_and_the_same_balances(
    books: Journal, database_url: str, tenant: str, tmp_path: Path
) -> None:
    path = await export(database_url, tenant, Format.BEANCOUNT, tmp_path)
    assert await output_of(str(Path(sys.executable).with_name("bean-check")), str(path)) == ""
    entries, errors, _ = loader.load_file(str(path))
    assert errors == []
    found: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    transactions = [entry for entry in entries if isinstance(entry, Transaction)]
    for transaction in transactions:
        for posting in transaction.postings:
            assert posting.units is not None
            assert isinstance(posting.units.number, Decimal)
            found[posting.account, posting.units.currency] += posting.units.number
    ours = {(name.replace("_", "-"), currency): sum_ for (name, currency), sum_ in (await our_balances(books)).items()}
    assert {key: balance for key, balance in found.items() if balance} == ours
    assert 'a "quoted" \\ text; and (more) | so' in {transaction.narration for transaction in transactions}
    assert date(1999, 12, 31) in {transaction.date for transaction in transactions}


async def test_hledger_finds_no_fault_and_the_same_balances(
    books: Journal, database_url: str, tenant: str, tmp_path: Path
) -> None:
    path = await export(database_url, tenant, Format.HLEDGER, tmp_path)

    await output_of("hledger", "-f", str(path), "check", "--strict")
    table = await output_of(
        *("hledger", "-f", str(path), "balance", "--flat", "--no-total", "--layout=bare", "-O", "csv")
    )
    rows = csv.DictReader(table.splitlines())
    found = {(row["account"], row["commodity"]): Decimal(row["balance"]) for row in rows}
    assert {key: balance for key, balance in found.items() if balance} == await our_balances(books)


async def test_a_csv_has_a_row_for_each_posting(books: Journal, database_url: str, tenant: str, tmp_path: Path) -> None:
    path = await export(database_url, tenant, Format.CSV, tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert [row["kind"] for row in rows] == ["settlement", *["transaction"] * 5, "reversal"]
    assert rows[0]["payment_intent_id"]
    assert not rows[0]["transaction_id"]
    assert (rows[1]["effective_at"], rows[1]["book_date"]) == ("1999-12-31T23:00:00+00:00", "1999-12-31")
    assert rows[2]["description"] == 'a "quoted" \\ text; and (more) | so'
    assert rows[4]["amount"] == "1.250"


async def test_a_parquet_file_has_typed_columns(books: Journal, database_url: str, tenant: str, tmp_path: Path) -> None:
    table = parquet.read_table(await export(database_url, tenant, Format.PARQUET, tmp_path))
    [capital] = [row for row in table.to_pylist() if row["credit_account"] == "CAPITAL"]
    assert capital["amount"] == Decimal("1000.00")
    assert capital["effective_at"] == datetime(1999, 12, 31, 23, tzinfo=UTC)
    assert capital["book_date"] == date(1999, 12, 31)
    assert capital["position"] == 1
    assert table.num_rows == 7


@pytest.mark.parametrize("format_", list(Format))
async def test_empty_books_can_be_exported(format_: Format, database_url: str, tenant: str, tmp_path: Path) -> None:
    assert (await export(database_url, tenant, format_, tmp_path)).exists()


async def test_only_what_was_recorded_in_the_period_is_exported(
    books: Journal, database_url: str, tenant: str, tmp_path: Path
) -> None:
    async def rows(period: Period) -> int:
        path = await export(database_url, tenant, Format.CSV, tmp_path, period)
        return len(path.read_text().splitlines()) - 1

    now = datetime.now(UTC)
    assert await rows(Period(now - timedelta(hours=1), now)) == 7
    assert await rows(Period(None, now - timedelta(hours=1))) == 0
    assert await rows(Period(now, None)) == 0


async def test_parts_leave_no_entry_out_and_repeat_none(
    books: Journal, database_url: str, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "ENTRIES_AT_ONCE", 2)
    monkeypatch.setattr(use_cases, "ACCOUNTS_AT_ONCE", 2)
    whole = await export(database_url, tenant, Format.CSV, tmp_path)
    ids = [line.split(",")[0] for line in whole.read_text().splitlines()[1:]]
    assert len(set(ids)) == len(ids) == 7


async def test_an_export_that_fails_leaves_nothing_behind(
    books: Journal, database_url: str, tenant: str, tmp_path: Path
) -> None:
    before = tmp_path / "books.csv"
    before.write_text("as it was")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await operations.export(database_url, tenant, Format.CSV, before, EVERYTHING, interrupt)
    assert names_in(tmp_path) == [before.name]
    assert before.read_text() == "as it was"


async def test_an_unknown_tenant_has_no_books(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownTenant):
        await operations.export(database_url, "nobody", Format.CSV, tmp_path / "x", EVERYTHING, lambda *_: None)
