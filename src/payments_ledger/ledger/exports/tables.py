"""Exports as tables, a row for each posting: CSV (RFC 4180), and Parquet with typed columns."""

import csv
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from payments_ledger.ledger.exports.export import ExportedEntry, Opening
from payments_ledger.money import format_amount

COLUMNS = (
    "entry_id",
    "position",
    "kind",
    "recorded_at",
    "effective_at",
    "book_date",
    "debit_account",
    "credit_account",
    "amount",
    "currency",
    "transaction_id",
    "payment_intent_id",
    "description",
    "reference",
    "correlation_id",
)
# What no currency has more of (ISO 4217 has up to 4), and what a bigint of minor units has at most.
_PLACES, _DIGITS = 4, 23


class CsvWriter:
    """With a header. Texts are as they are: who opens them in a spreadsheet imports them as text."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file)

    def begin(self, opening: Opening) -> None:
        """Writes the header."""
        del opening
        self._writer.writerow(COLUMNS)

    def write(self, entries: Sequence[ExportedEntry]) -> None:
        """A row for each posting; amounts in major units, times in UTC."""
        for entry in entries:
            self._writer.writerows(_texts(row) for row in _rows(entry))

    def end(self) -> None:
        """Nothing is left."""


class ParquetWriter:
    """A file of Apache Parquet, a row group for each part. Needs the package's extra `parquet`."""

    def __init__(self, path: Path) -> None:
        """Raises ImportError without the extra."""
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        instant = pyarrow.timestamp("us", tz="UTC")
        types = {
            "position": pyarrow.int16(),
            "recorded_at": instant,
            "effective_at": instant,
            "book_date": pyarrow.date32(),
            "amount": pyarrow.decimal128(_DIGITS, _PLACES),
        }
        self._schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def begin(self, opening: Opening) -> None:
        """Nothing stands before the rows."""
        del opening

    def write(self, entries: Sequence[ExportedEntry]) -> None:
        """A row for each posting; amounts in major units."""
        rows = [row for entry in entries for row in _rows(entry)]
        arrays = [
            self._arrow.array([row[place] for row in rows], field.type) for place, field in enumerate(self._schema)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def end(self) -> None:
        """Writes the footer, without which the file cannot be read."""
        self._writer.close()


def _rows(entry: ExportedEntry) -> Iterator[tuple[Any, ...]]:
    source = str(entry.source_id)
    for position, posting in enumerate(entry.postings, start=1):
        yield (
            str(entry.id),
            position,
            entry.kind,
            entry.recorded_at,
            entry.effective_at,
            entry.book_date,
            posting.debit_account,
            posting.credit_account,
            Decimal(format_amount(posting.money.amount, posting.money.currency)),
            posting.money.currency,
            source if entry.is_transaction else None,
            None if entry.is_transaction else source,
            entry.description,
            entry.reference,
            entry.correlation_id,
        )


def _texts(row: tuple[Any, ...]) -> list[Any]:
    return [value.isoformat() if hasattr(value, "isoformat") else value for value in row]
