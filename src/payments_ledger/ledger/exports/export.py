"""What is exported, as values: the accounts, and entry by entry what was posted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from payments_ledger.ledger.accounts import Account
from payments_ledger.ledger.entry import Posting


class Format(StrEnum):
    """What an export can be written as."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class ExportedEntry:
    """An entry with both its times; `source_id` is its transaction (`is_transaction`) or the payment it is about."""

    id: UUID
    kind: str
    recorded_at: datetime
    effective_at: datetime
    book_date: date
    source_id: UUID
    is_transaction: bool
    correlation_id: str
    description: str | None
    reference: str | None
    postings: tuple[Posting, ...]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return self.description or self.kind


@dataclass(frozen=True, slots=True)
class Opening:
    """What stands before all entries. Nothing is booked before `first_day`; `currencies` are those that moved."""

    tenant_id: str
    accounts: Sequence[Account]
    currencies: Sequence[str]
    first_day: date


class Writer(Protocol):
    """Writes an export to a file, part by part, so that books of any size fit in memory."""

    def begin(self, opening: Opening) -> None:
        """Writes what stands before all entries."""

    def write(self, entries: Sequence[ExportedEntry]) -> None:
        """Writes entries, which come in the order of their recording."""

    def end(self) -> None:
        """Writes what is left, and leaves the file complete."""
