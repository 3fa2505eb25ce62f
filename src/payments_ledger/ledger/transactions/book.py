"""The book that commands are decided over, one after another: values in, values out, no database.

Each method checks in the contract's order and raises what refuses the command; what it returns is a change that is not
made yet. `apply` makes it, so that the next command sees it. A dry run is a change that nobody applies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

from payments_ledger.errors import (
    AccountClosed,
    AlreadyReversed,
    ConditionFailed,
    Fault,
    HoldExpired,
    InsufficientFunds,
    InvalidAmount,
    InvalidRequest,
    LimitExceeded,
    NotPending,
    NotPosted,
    ReferenceTaken,
    TransactionNotFound,
    UnknownAccount,
)
from payments_ledger.ledger.accounts import Account
from payments_ledger.ledger.balances.balance import NOTHING, BalanceKey, RunningBalance, movements
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.transaction import (
    AHEAD_MAX,
    EFFECTIVE_MIN,
    Condition,
    Kind,
    NewTransaction,
    Status,
    Transaction,
)
from payments_ledger.money import Money, format_amount, parse_money

type Key = tuple[str, UUID]
"""Tenant and id of a transaction."""


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction as it will be, what it was before (None: it is new), and the balances that change with it.

    `first` is the transaction that it reverses, if it is a reversal.
    """

    after: Transaction
    before: Transaction | None
    balances: Mapping[BalanceKey, RunningBalance]
    first: Transaction | None = None


@dataclass
class Book:
    """Everything that the commands of a batch are about, as it is at the time `now`.

    `balances` are those that are kept and those that conditions ask for; an account without one has no limit. `zones`
    are those of the tenants; one that is not in it has UTC.
    """

    now: datetime
    accounts: Mapping[tuple[str, str], Account]
    balances: dict[BalanceKey, RunningBalance] = field(default_factory=dict)
    transactions: dict[Key, Transaction] = field(default_factory=dict)
    references: dict[tuple[str, str], UUID] = field(default_factory=dict)
    zones: Mapping[str, str] = field(default_factory=dict)

    def fork(self) -> Self:
        """A book of the same content, for changes that may have to be forgotten together."""
        return replace(
            self,
            balances=dict(self.balances),
            transactions=dict(self.transactions),
            references=dict(self.references),
        )

    def apply(self, change: Change) -> None:
        """Makes the change; commands that follow see it."""
        after = change.after
        self.balances.update(change.balances)
        self.transactions[after.key] = after
        if after.reference is not None:
            self.references[after.tenant_id, after.reference] = after.id
        if change.first is not None:
            self.transactions[change.first.key] = replace(change.first, reversed_by=after.id)

    def record(self, tenant_id: str, new: NewTransaction, correlation_id: str) -> Change:
        """Posts the transaction, or holds what it would post.

        Raises UnknownAccount and InvalidRequest (times); ReferenceTaken, AccountClosed, ConditionFailed,
        InsufficientFunds, LimitExceeded.
        """
        self._require_accounts(tenant_id, new)
        self._require_times(new)
        if new.reference is not None and (taken := self.references.get((tenant_id, new.reference))):
            raise ReferenceTaken(taken_by=taken)
        self._require_open(tenant_id, new.postings)
        for place, condition in enumerate(new.conditions):
            self._require(tenant_id, place, condition)
        moved = {"held" if new.is_pending else "posted": new.postings}
        balances = self._balances_after(tenant_id, **moved)
        self._require_limits(balances.values())
        transaction = Transaction(
            tenant_id=tenant_id,
            id=new.id,
            kind=Kind.TRANSACTION,
            status=Status.PENDING if new.is_pending else Status.POSTED,
            postings=new.postings,
            recorded_at=self.now,
            effective_at=new.effective_at or self.now,
            correlation_id=correlation_id,
            held=new.postings if new.is_pending else (),
            reference=new.reference,
            description=new.description,
            metadata=new.metadata,
            expires_at=new.expires_at,
            posted_at=None if new.is_pending else self.now,
            balances_after=_shown(balances.values()),
            zone=self.zones.get(tenant_id, "UTC"),
        )
        return Change(transaction, None, balances)

    def post(self, key: Key, amounts: Sequence[str | int | Decimal] | None = None) -> Change:
        """Posts what is held, or `amounts` of it, one for each posting in major units; the rest is released.

        Raises TransactionNotFound; InvalidRequest (amounts); NotPending, HoldExpired, AccountClosed, InsufficientFunds,
        LimitExceeded.
        """
        hold = self._transaction(key)
        # Also of what is not pending any more: what can be seen to be wrong with a request is said first.
        postings = hold.postings if amounts is None else _reduced(hold.held or hold.postings, amounts)
        self._require_pending(hold)
        self._require_open(hold.tenant_id, postings)
        balances = self._balances_after(hold.tenant_id, posted=postings, released=hold.held)
        self._require_limits(balances.values())
        return self._ended(hold, Status.POSTED, balances, postings=postings, posted_at=self.now)

    def void(self, key: Key) -> Change:
        """Releases what is held. Raises TransactionNotFound, NotPending, HoldExpired."""
        hold = self._transaction(key)
        self._require_pending(hold)
        return self._ended(hold, Status.VOIDED, self._balances_after(hold.tenant_id, released=hold.held))

    def expire(self, key: Key) -> Change:
        """Releases what is held by a hold whose time is over. Raises TransactionNotFound, NotPending."""
        hold = self._transaction(key)
        if hold.status is not Status.PENDING or not hold.has_expired(self.now):
            raise NotPending("This is no hold that has to expire.")
        return self._ended(hold, Status.EXPIRED, self._balances_after(hold.tenant_id, released=hold.held))

    def reverse(
        self,
        key: Key,
        reversal_id: UUID,
        effective_at: datetime | Literal["original"],
        reason: str | None,
        correlation_id: str,
    ) -> Change:
        """A new transaction whose postings mirror those of the first.

        Raises TransactionNotFound; InvalidRequest (effective_at); NotPosted, AlreadyReversed, AccountClosed,
        InsufficientFunds, LimitExceeded.
        """
        first = self._transaction(key)
        effective_at = first.effective_at if effective_at == "original" else effective_at
        if effective_at < first.effective_at:
            raise _invalid("effective_at", "must not be before that of the transaction that is reversed")
        self._require_past("effective_at", effective_at)
        if first.status is not Status.POSTED:
            raise NotPosted(f"The transaction is {first.status}.")
        if first.reversed_by is not None:
            raise AlreadyReversed
        mirrored = tuple(
            Posting(posting.credit_account, posting.debit_account, posting.money) for posting in first.postings
        )
        self._require_open(first.tenant_id, mirrored)
        balances = self._balances_after(first.tenant_id, posted=mirrored)
        self._require_limits(balances.values())
        reversal = Transaction(
            tenant_id=first.tenant_id,
            id=reversal_id,
            kind=Kind.REVERSAL,
            status=Status.POSTED,
            postings=mirrored,
            recorded_at=self.now,
            effective_at=effective_at,
            correlation_id=correlation_id,
            # Its one event is the first's.
            version=0,
            posted_at=self.now,
            reverses=first.id,
            reason=reason,
            balances_after=_shown(balances.values()),
            zone=first.zone,
        )
        return Change(reversal, None, balances, first)

    # ------------------------------------------------------------------------------------------------------------------
    # What is required, and what follows

    def _transaction(self, key: Key) -> Transaction:
        if key not in self.transactions:
            raise TransactionNotFound
        return self.transactions[key]

    def _require_accounts(self, tenant_id: str, new: NewTransaction) -> None:
        named = {account for posting in new.postings for account in (posting.debit_account, posting.credit_account)}
        unknown = {code for code in named if (tenant_id, code) not in self.accounts}
        faults = [Fault(f"there is no account {code}", path) for code, path in _places(new) if code in unknown]
        faults += [
            Fault(f"there is no account {condition.account}", ("conditions", place, "account"))
            for place, condition in enumerate(new.conditions)
            if (tenant_id, condition.account) not in self.accounts
        ]
        if faults:
            raise UnknownAccount(faults)

    def _require_times(self, new: NewTransaction) -> None:
        if new.effective_at is not None:
            self._require_past("effective_at", new.effective_at)
        if new.expires_at is not None and new.expires_at <= self.now:
            raise _invalid("expires_at", "must be later than now")

    def _require_past(self, field_name: str, instant: datetime) -> None:
        if instant > self.now + AHEAD_MAX:
            raise _invalid(field_name, "must not be later than the time of the recording")
        if instant < EFFECTIVE_MIN:
            raise _invalid(field_name, f"must not be before {EFFECTIVE_MIN.date()}")

    def _require_pending(self, hold: Transaction) -> None:
        if hold.has_expired(self.now):
            raise HoldExpired
        if hold.status is not Status.PENDING:
            raise NotPending(f"The transaction is {hold.status}.")

    def _require_open(self, tenant_id: str, postings: Iterable[Posting]) -> None:
        for posting in postings:
            for code in (posting.debit_account, posting.credit_account):
                if self.accounts[tenant_id, code].closed_at is not None:
                    raise AccountClosed(f"The account {code} is closed.")

    def _require(self, tenant_id: str, place: int, condition: Condition) -> None:
        balance = self.balances[tenant_id, condition.account, condition.currency]
        account, currency = condition.account, condition.currency
        if condition.available_min is not None and balance.available < condition.available_min:
            least, found = (format_amount(amount, currency) for amount in (condition.available_min, balance.available))
            detail = f"{account} must have at least {least} {currency} available; found {found}."
            raise ConditionFailed(detail, ("conditions", place, "available_min"))
        if condition.version is not None and balance.version != condition.version:
            detail = f"{account} must be at version {condition.version} in {currency}; found {balance.version}."
            raise ConditionFailed(detail, ("conditions", place, "version"))

    def _balances_after(
        self,
        tenant_id: str,
        *,
        posted: Iterable[Posting] = (),
        held: Iterable[Posting] = (),
        released: Iterable[Posting] = (),
    ) -> dict[BalanceKey, RunningBalance]:
        """Of the accounts that have one: the whole transaction counts, not posting by posting."""
        parts = {"posted": movements(posted), "held": movements(held), "released": movements(released)}
        after: dict[BalanceKey, RunningBalance] = {}
        for account, currency in dict.fromkeys(name for part in parts.values() for name in part):
            key = tenant_id, account, currency
            if balance := self.balances.get(key):
                moved = {name: part.get((account, currency), NOTHING) for name, part in parts.items()}
                after[key] = balance.changed(**moved)
        return after

    def _require_limits(self, balances: Iterable[RunningBalance]) -> None:
        """Raises InsufficientFunds for the first below its minimum, else LimitExceeded for one above its maximum."""
        kept = list(balances)
        for balance in kept:
            if balance.is_below_minimum:
                raise InsufficientFunds(
                    f"{balance.account} would have {_amount(balance, balance.available)} available; "
                    f"its minimum is {_amount(balance, balance.minimum)}."
                )
        for balance in kept:
            if balance.is_above_maximum:
                raise LimitExceeded(
                    f"{balance.account} would come to {_amount(balance, balance.highest)}; "
                    f"its maximum is {_amount(balance, balance.maximum)}."
                )

    def _ended(
        self,
        hold: Transaction,
        status: Status,
        balances: Mapping[BalanceKey, RunningBalance],
        *,
        postings: tuple[Posting, ...] | None = None,
        posted_at: datetime | None = None,
    ) -> Change:
        after = replace(
            hold,
            status=status,
            version=hold.version + 1,
            postings=hold.postings if postings is None else postings,
            posted_at=posted_at,
            balances_after=_shown(balances.values()),
        )
        return Change(after, hold, balances)


def _places(new: NewTransaction) -> Iterable[tuple[str, tuple[str | int, ...]]]:
    """Each account that the request names, and where."""
    if new.lines:
        for place, line in enumerate(new.lines):
            yield line.account, ("lines", place, "account")
        return
    for place, posting in enumerate(new.postings):
        yield posting.debit_account, ("postings", place, "debit")
        yield posting.credit_account, ("postings", place, "credit")


def _reduced(held: Sequence[Posting], amounts: Sequence[str | int | Decimal]) -> tuple[Posting, ...]:
    """The postings over the given amounts, each at most what is held."""
    if len(amounts) != len(held):
        raise _invalid("amounts", f"must have one amount for each posting: {len(held)}")
    faults: list[Fault] = []
    postings: list[Posting] = []
    for place, (posting, amount) in enumerate(zip(held, amounts, strict=True)):
        try:
            money = parse_money(amount, posting.money.currency)
        except InvalidAmount as error:
            faults.append(Fault(error.detail, ("amounts", place)))
            continue
        if money.amount > posting.money.amount:
            faults.append(Fault(f"must be at most what is held, {posting.money}", ("amounts", place)))
        postings.append(Posting(posting.debit_account, posting.credit_account, Money(money.amount, money.currency)))
    if faults:
        raise InvalidRequest(faults)
    return tuple(postings)


def _invalid(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest([Fault(detail, (name,))])


def _shown(balances: Iterable[RunningBalance]) -> tuple[RunningBalance, ...]:
    """Those that a response shows: of accounts with limits."""
    return tuple(balance for balance in balances if balance.has_limits)


def _amount(balance: RunningBalance, amount: int | None) -> str:
    assert amount is not None
    return f"{format_amount(amount, balance.currency)} {balance.currency}"
