"""The book decides over values: in order, by the net of a transaction, and without a trace of what it refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from payments_ledger.errors import (
    AccountClosed,
    AlreadyReversed,
    ConditionFailed,
    HoldExpired,
    InsufficientFunds,
    InvalidRequest,
    LedgerError,
    LimitExceeded,
    NotPending,
    NotPosted,
    ReferenceTaken,
    TransactionNotFound,
    UnknownAccount,
)
from payments_ledger.ledger.accounts import Account, AccountType, Side
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.book import Book, Change
from payments_ledger.ledger.transactions.transaction import Condition, Kind, NewTransaction, Status
from payments_ledger.money import Money

T = "t"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def posting(debit: str, credit: str, amount: int = 100, currency: str = "BRL") -> Posting:
    return Posting(debit, credit, Money(amount, currency))


def new(*postings: Posting, **more: object) -> NewTransaction:
    return replace(NewTransaction(uuid4(), postings or (posting("A", "B"),)), **more)  # type: ignore[arg-type]


@pytest.fixture
def book() -> Book:
    """A and B are wallets that are never overdrawn, B of at most 500; A has 100. BANK has no limit, OLD is closed."""
    accounts = {
        (T, code): Account(code, code, AccountType.ASSET if code == "BANK" else AccountType.LIABILITY)
        for code in ("A", "B", "BANK", "OLD")
    }
    accounts[T, "OLD"] = replace(accounts[T, "OLD"], closed_at=NOW)
    balances = {
        (T, "A", "BRL"): RunningBalance("A", "BRL", Side.CREDIT, credits=100, minimum=0, version=7),
        (T, "B", "BRL"): RunningBalance("B", "BRL", Side.CREDIT, minimum=0, maximum=500),
    }
    return Book(NOW, accounts, balances, references={(T, "taken"): UUID(int=7)})


def made(book: Book, change: Change) -> Change:
    book.apply(change)
    return change


def record(book: Book, item: NewTransaction) -> Change:
    return made(book, book.record(T, item, "c"))


def state(book: Book) -> tuple[object, ...]:
    return dict(book.balances), dict(book.transactions), dict(book.references)


WRONG_CONDITION = (Condition("A", "BRL", version=8),)


@pytest.mark.parametrize(
    ("item", "refusal"),
    [
        (new(posting("A", "NOWHERE")), UnknownAccount),
        (new(conditions=(Condition("NOWHERE", "BRL", 0),)), UnknownAccount),
        (new(effective_at=NOW + SECOND + timedelta(microseconds=1)), InvalidRequest),
        (new(is_pending=True, expires_at=NOW), InvalidRequest),
        (new(reference="taken"), ReferenceTaken),
        (new(posting("A", "OLD")), AccountClosed),
        (new(posting("OLD", "B")), AccountClosed),
        (new(conditions=(Condition("A", "BRL", available_min=101),)), ConditionFailed),
        (new(conditions=WRONG_CONDITION), ConditionFailed),
        (new(posting("A", "B", 101)), InsufficientFunds),
        (new(posting("A", "B", 101), is_pending=True), InsufficientFunds),
        (new(posting("BANK", "B", 501)), LimitExceeded),
        (new(posting("BANK", "B", 501), is_pending=True), LimitExceeded),
        # The order of refusals: each of these also has everything that comes after it.
        (new(posting("OLD", "NOWHERE"), reference="taken"), UnknownAccount),
        (new(posting("OLD", "A"), reference="taken", effective_at=NOW + 2 * SECOND), InvalidRequest),
        (new(posting("OLD", "B", 501), reference="taken", conditions=WRONG_CONDITION), ReferenceTaken),
        (new(posting("A", "OLD", 101), conditions=WRONG_CONDITION), AccountClosed),
        (new(posting("A", "B", 501), conditions=WRONG_CONDITION), ConditionFailed),
        (new(posting("BANK", "B", 501), posting("A", "BANK", 101)), InsufficientFunds),
    ],
)
def test_a_refused_transaction_leaves_no_trace(book: Book, item: NewTransaction, refusal: type[LedgerError]) -> None:
    before = state(book)
    with pytest.raises(refusal) as refused:
        book.record(T, item, "c")
    assert type(refused.value) is refusal
    assert state(book) == before


def test_what_is_decided_is_not_made_before_it_is_applied(book: Book) -> None:
    before = state(book)
    book.record(T, new(), "c")
    assert state(book) == before


def test_the_next_command_sees_what_the_one_before_left(book: Book) -> None:
    record(book, new(posting("A", "B", 60), reference="r"))
    with pytest.raises(InsufficientFunds):
        book.record(T, new(posting("A", "B", 41)), "c")
    with pytest.raises(ReferenceTaken):
        book.record(T, new(posting("A", "B", 1), reference="r"), "c")
    record(book, new(posting("B", "A", 60)))
    assert book.balances[T, "A", "BRL"].available == 100
    assert book.balances[T, "A", "BRL"].version == 9


def test_a_fork_can_be_forgotten(book: Book) -> None:
    before = state(book)
    record(book.fork(), new(reference="r"))
    assert state(book) == before


def test_only_the_net_of_a_transaction_counts(book: Book) -> None:
    through = new(posting("B", "BANK", 1000), posting("BANK", "B", 1000))
    change = record(book, through)
    balance = change.balances[T, "B", "BRL"]
    assert (balance.debits, balance.credits, balance.posted) == (1000, 1000, 0)
    held = record(book, replace(through, id=uuid4(), is_pending=True)).balances[T, "B", "BRL"]
    assert (held.pending_debits, held.pending_credits) == (0, 0)


def test_currencies_are_limited_each_by_itself(book: Book) -> None:
    assert (T, "A", "USD") not in record(book, new(posting("A", "B", 10_000, "USD"))).balances


def test_a_hold_moves_nothing_until_it_is_posted(book: Book) -> None:
    hold = record(book, new(posting("A", "B", 60), is_pending=True, expires_at=NOW + SECOND)).after
    assert (hold.status, hold.posted_at, hold.held) == (Status.PENDING, None, hold.postings)
    assert [book.balances[T, code, "BRL"].available for code in "AB"] == [40, 0]
    posted = made(book, book.post(hold.key, ["0.45"])).after
    assert (posted.status, posted.version, posted.posted_at) == (Status.POSTED, 2, NOW)
    assert [each.money.amount for each in posted.released] == [15]
    assert [book.balances[T, code, "BRL"].available for code in "AB"] == [55, 45]
    assert book.balances[T, "A", "BRL"].pending_debits == 0


def test_posting_less_of_one_side_than_of_the_other_is_judged_again(book: Book) -> None:
    through = new(posting("BANK", "B", 100), posting("B", "BANK", 100), is_pending=True)
    hold = record(book, through).after
    with pytest.raises(InsufficientFunds):
        book.post(hold.key, ["0.40", "0.60"])
    made(book, book.post(hold.key, ["0.60", "0.40"]))
    assert book.balances[T, "B", "BRL"].posted == 20


@pytest.mark.parametrize("amounts", [[], ["0.60", "0.60"], ["0.61"], ["0"], ["-0.01"], ["x"], ["0.001"]])
def test_amounts_that_do_not_fit_what_is_held_are_refused(book: Book, amounts: list[str]) -> None:
    hold = record(book, new(posting("A", "B", 60), is_pending=True)).after
    with pytest.raises(InvalidRequest):
        book.post(hold.key, amounts)


def test_a_hold_ends_once(book: Book) -> None:
    hold = record(book, new(posting("A", "B", 60), is_pending=True)).after
    made(book, book.void(hold.key))
    assert book.balances[T, "A", "BRL"].available == 100
    for end in (book.post, book.void, book.expire):
        with pytest.raises(NotPending):
            end(hold.key)


def test_from_its_time_on_a_hold_can_only_expire(book: Book) -> None:
    hold = record(book, new(posting("A", "B", 60), is_pending=True, expires_at=NOW + SECOND)).after
    with pytest.raises(NotPending):
        book.expire(hold.key)
    book.now = NOW + SECOND
    for end in (book.post, book.void):
        with pytest.raises(HoldExpired):
            end(hold.key)
    assert made(book, book.expire(hold.key)).after.status is Status.EXPIRED
    assert book.balances[T, "A", "BRL"].available == 100
    with pytest.raises(HoldExpired):
        book.void(hold.key)


def test_a_reversal_mirrors_the_first_once(book: Book) -> None:
    first = record(book, new(posting("A", "B", 60), effective_at=NOW - SECOND)).after
    change = made(book, book.reverse(first.key, uuid4(), "original", "why", "c"))
    assert (change.after.kind, change.after.reverses, change.after.reason) == (Kind.REVERSAL, first.id, "why")
    assert change.after.postings == (posting("B", "A", 60),)
    assert change.after.effective_at == NOW - SECOND
    assert book.balances[T, "A", "BRL"].posted == 100
    assert book.transactions[first.key].reversed_by == change.after.id
    with pytest.raises(AlreadyReversed):
        book.reverse(first.key, uuid4(), "original", None, "c")


@pytest.mark.parametrize("effective_at", [NOW - 2 * SECOND, NOW + 2 * SECOND])
def test_a_reversal_is_effective_neither_before_the_first_nor_ahead(book: Book, effective_at: datetime) -> None:
    first = record(book, new(effective_at=NOW - SECOND)).after
    with pytest.raises(InvalidRequest):
        book.reverse(first.key, uuid4(), effective_at, None, "c")


def test_a_reversal_obeys_limits_and_wants_what_is_posted(book: Book) -> None:
    first = record(book, new(posting("A", "B", 60))).after
    record(book, new(posting("B", "BANK", 1)))
    with pytest.raises(InsufficientFunds):
        book.reverse(first.key, uuid4(), NOW, None, "c")
    hold = record(book, new(posting("A", "B", 1), is_pending=True)).after
    with pytest.raises(NotPosted):
        book.reverse(hold.key, uuid4(), NOW, None, "c")


def test_what_is_unknown_is_not_found(book: Book) -> None:
    for end in (book.post, book.void, book.expire):
        with pytest.raises(TransactionNotFound):
            end((T, UUID(int=1)))
    with pytest.raises(TransactionNotFound):
        book.reverse((T, UUID(int=1)), uuid4(), NOW, None, "c")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("A", "BRL", available_min=100), True),
        (Condition("A", "BRL", available_min=101), False),
        (Condition("A", "BRL", available_min=-1), True),
        (Condition("A", "BRL", version=7), True),
        (Condition("A", "BRL", version=6), False),
        (Condition("A", "BRL", available_min=100, version=8), False),
    ],
)
def test_a_condition_is_about_what_is_available_before(book: Book, condition: Condition, holds: bool) -> None:
    item = new(posting("A", "B", 100), conditions=(condition,))
    if holds:
        record(book, item)
    else:
        with pytest.raises(ConditionFailed, match="found"):
            book.record(T, item, "c")
