"""A transaction as a value: postings that are in the books, or held until they are posted, voided or expire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from payments_ledger.ledger import entry
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.lines import Line
from payments_ledger.money import Money

# One transaction is one decision; what is larger is better stated as several in an atomic batch.
POSTINGS_MAX = 100
# Clocks of clients may be ahead a little. There is no posting ahead of its time.
AHEAD_MAX = timedelta(seconds=1)
# Every calendar that reads our books has the days from then on, whatever the zone. No books of today go back further.
EFFECTIVE_MIN = datetime(1900, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """What a transaction is; the entry that it posts is of the same kind."""

    TRANSACTION = entry.TRANSACTION
    REVERSAL = entry.REVERSAL


class Status(StrEnum):
    """PENDING (a hold) becomes POSTED, VOIDED or EXPIRED, once; whatever is POSTED stays so."""

    PENDING = "PENDING"
    POSTED = "POSTED"
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be true of an account before a transaction: at least so much available, in minor units; a version."""

    account: str
    currency: str
    available_min: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class NewTransaction:
    """A transaction to record, under an id that the caller has chosen (UUIDv7); a dry run records nothing.

    `effective_at` None is the time of the recording. `lines` are what the postings were paired from, if anything.
    """

    id: UUID
    postings: tuple[Posting, ...]
    lines: tuple[Line, ...] = ()
    is_pending: bool = False
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    reference: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    is_dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of one tenant; `version` counts its events.

    `postings` are in the books if it is POSTED; `held` is what a hold began with, () if it never was one. The entry has
    the transaction's id, and the time `posted_at`. `zone` is the tenant's.
    """

    tenant_id: str
    id: UUID
    kind: Kind
    status: Status
    postings: tuple[Posting, ...]
    recorded_at: datetime
    effective_at: datetime
    correlation_id: str
    version: int = 1
    held: tuple[Posting, ...] = ()
    reference: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    posted_at: datetime | None = None
    reverses: UUID | None = None
    reversed_by: UUID | None = None
    reason: str | None = None
    balances_after: tuple[RunningBalance, ...] = ()
    zone: str = "UTC"

    @property
    def key(self) -> tuple[str, UUID]:
        """Tenant and id."""
        return self.tenant_id, self.id

    @property
    def book_date(self) -> date:
        """The date of its effective time in the tenant's zone."""
        return self.effective_at.astimezone(ZoneInfo(self.zone)).date()

    @property
    def released(self) -> tuple[Posting, ...]:
        """What a hold that was posted held beyond what was posted."""
        if self.status is not Status.POSTED:
            return ()
        return tuple(
            Posting(held.debit_account, held.credit_account, Money(rest, held.money.currency))
            for held, posted in zip(self.held, self.postings, strict=False)
            if (rest := held.money.amount - posted.money.amount)
        )

    def has_expired(self, now: datetime) -> bool:
        """Whether it is a hold that counts no longer, swept or not."""
        if self.status is Status.PENDING:
            return self.expires_at is not None and self.expires_at <= now
        return self.status is Status.EXPIRED
