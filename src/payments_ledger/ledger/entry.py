"""An entry and its postings. A posting debits and credits the same money, so an entry cannot be out of balance."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments_ledger.ledger.accounts import GROWS_BY_DEBITS, AccountType
from payments_ledger.money import Money

# Entries of these kinds are posted by transactions of the ledger's own; all others by whoever declares their kind.
TRANSACTION = "transaction"
REVERSAL = "reversal"
TRANSACTION_KINDS = (TRANSACTION, REVERSAL)


@dataclass(frozen=True, slots=True)
class Posting:
    """`money` moves from the credited account to the debited one; accounts are named by their code."""

    debit_account: str
    credit_account: str
    money: Money

    def __post_init__(self) -> None:
        if self.debit_account == self.credit_account:
            raise ValueError("a posting needs two different accounts")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one business fact (`source_id`) writes into the books; at most one entry of a `kind` for each fact.

    `subject_id` is what the fact belongs to, as a refund to its payment; None where the fact stands for itself.
    """

    tenant_id: str
    id: UUID
    kind: str
    source_id: UUID
    correlation_id: str
    postings: tuple[Posting, ...]
    subject_id: UUID | None = None

    def __post_init__(self) -> None:
        if not self.postings:
            raise ValueError("an entry needs at least one posting")


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """An entry in the books, dated by the transaction that posted it."""

    entry: Entry
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """The sums of one account in one currency over a period, in minor units."""

    account: str
    type: AccountType
    currency: str
    debits_total: int
    credits_total: int
    is_contra: bool = False

    @property
    def balance(self) -> int:
        """Positive on the account's normal side."""
        net_debit = self.debits_total - self.credits_total
        return net_debit if (self.type in GROWS_BY_DEBITS) != self.is_contra else -net_debit
