"""What can be done with transactions: one use case for all of it, so that one order of locks serves a whole batch.

Read and lock; decide by the book (book.py), command by command; and past that point only write. Locks are taken in this
order: transactions, accounts, balances, totals, each sorted. A hold whose time is over is ended by whoever comes first:
the worker's sweep, or a batch that moves an account on which it would still count.

Long because these belong together: each command may change what the next one of its batch finds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from prometheus_client import Counter

from payments_ledger.commit.audit import AuditRecord, Origin, defer_audit
from payments_ledger.commit.events import defer_events
from payments_ledger.errors import LedgerError, Rejected, TransactionNotFound
from payments_ledger.ledger.accounts import OF_PAYMENTS
from payments_ledger.ledger.balances.balance import BalanceKey, RunningBalance
from payments_ledger.ledger.balances.queries import (
    find_kept,
    list_running_balances,
    lock_balances,
    make_balances,
    save_balances,
)
from payments_ledger.ledger.chart.queries import lock_accounts
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.ledger.transactions import queries
from payments_ledger.ledger.transactions.book import Book, Change, Key
from payments_ledger.ledger.transactions.events import event_of
from payments_ledger.ledger.transactions.queries import Note
from payments_ledger.ledger.transactions.transaction import NewTransaction, Status, Transaction
from payments_ledger.ledger.use_cases import post_entries
from payments_ledger.money import format_amount
from payments_ledger.postgres.database import Connection, transaction_time
from payments_ledger.process.portions import in_portions
from payments_ledger.telemetry.tracing import Trace

TRANSACTIONS = Counter(
    "ledger_transactions_total",
    "Transactions of the ledger by what became of them; a batch that is run again counts again",
    ["outcome"],
)

# Who ends holds whose time is over.
SWEEPER = "worker"


@dataclass(frozen=True, slots=True)
class RecordTransactions:
    """Records one transaction or many; one that was refused beforehand keeps its place.

    If it is atomic, one that is refused has all of them refused.
    """

    tenant_id: str
    transactions: tuple[NewTransaction | Rejected, ...]
    origin: Origin
    is_atomic: bool = False


@dataclass(frozen=True, slots=True)
class PostHold:
    """From PENDING to POSTED, over `amounts` in major units, one for each posting; None is all that is held."""

    tenant_id: str
    transaction_id: UUID
    origin: Origin
    amounts: tuple[str | int | Decimal, ...] | None = None


@dataclass(frozen=True, slots=True)
class VoidHold:
    """From PENDING to VOIDED."""

    tenant_id: str
    transaction_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class ExpireHold:
    """From PENDING to EXPIRED, once its time is over."""

    tenant_id: str
    transaction_id: UUID
    origin: Origin


@dataclass(frozen=True, slots=True)
class ReverseTransaction:
    """A new transaction, under an id that the caller has chosen (UUIDv7), that mirrors one which is POSTED."""

    tenant_id: str
    transaction_id: UUID
    reversal_id: UUID
    effective_at: datetime | Literal["original"]
    reason: str | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class WriteNote:
    """Adds a note to a transaction, under an id that the caller has chosen (UUIDv7)."""

    tenant_id: str
    transaction_id: UUID
    id: UUID
    text: str
    origin: Origin


type BookCommand = RecordTransactions | PostHold | VoidHold | ExpireHold | ReverseTransaction


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of each transaction of the command, in their order."""

    command: RecordTransactions
    outcomes: tuple[Transaction | Rejected, ...]


@dataclass(frozen=True, slots=True)
class AtomicRefusal:
    """Why all transactions of the command were refused, and which of them is the first to blame."""

    command: RecordTransactions
    error: LedgerError
    index: int


type Outcome = Recorded | AtomicRefusal | Transaction | Rejected

type Written = list[tuple[Change, Origin]]
"""The changes that a batch makes, in their order, with who asked for each."""


async def change_book(conn: Connection, commands: Sequence[BookCommand]) -> list[Outcome]:
    """Recorded or AtomicRefusal for RecordTransactions; a Transaction for every other command, or Rejected.

    What a command is refused for are the errors of the methods of Book, and what was refused beforehand.
    """
    book, expired = await _open_book(conn, commands)
    written = [(change, _sweeping(change.after)) for change in (_made(book, book.expire(key)) for key in expired)]
    outcomes: list[Outcome] = []
    async for command in in_portions(commands):
        if isinstance(command, RecordTransactions):
            outcomes.append(await _record(book, command, written))
            continue
        try:
            change = _made(book, _decide(book, command))
        except LedgerError as error:
            outcomes.append(Rejected(error))
        else:
            written.append((change, command.origin))
            outcomes.append(change.after)
    if written:
        await _write(conn, book.now, written)
    _count(outcomes)
    return outcomes


def _count(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        match outcome:
            case Recorded(outcomes=each):
                _count(each)
            case AtomicRefusal(error=error) | Rejected(error=error):
                TRANSACTIONS.labels(error.code).inc()
            case Transaction(status=status):
                TRANSACTIONS.labels(status.value.lower()).inc()


async def write_notes(conn: Connection, commands: Sequence[WriteNote]) -> list[Note | Rejected]:
    """Notes that stand beside their transactions for ever. Rejected: TransactionNotFound."""
    now = await transaction_time(conn)
    existing = await queries.find_existing(conn, {(command.tenant_id, command.transaction_id) for command in commands})
    outcomes: list[Note | Rejected] = []
    audit: list[AuditRecord] = []
    for command in commands:
        if (command.tenant_id, command.transaction_id) not in existing:
            outcomes.append(Rejected(TransactionNotFound()))
            continue
        principal = command.origin.principal
        outcomes.append(Note(command.tenant_id, command.transaction_id, command.id, command.text, principal, now))
        detail = {"note_id": str(command.id)}
        target = str(command.transaction_id)
        audit.append(AuditRecord(command.tenant_id, command.origin, "transaction.note", target, detail))
    if notes := [outcome for outcome in outcomes if isinstance(outcome, Note)]:
        await queries.insert_notes(conn, notes)
        defer_audit(conn, audit)
    return outcomes


# ----------------------------------------------------------------------------------------------------------------------
# Read and lock


async def _open_book(conn: Connection, commands: Sequence[BookCommand]) -> tuple[Book, list[Key]]:
    """What the commands are about, locked; and the holds among it that have to expire first."""
    now = await transaction_time(conn)
    new = [
        (command.tenant_id, transaction)
        for command in commands
        if isinstance(command, RecordTransactions)
        for transaction in command.transactions
        if isinstance(transaction, NewTransaction)
    ]
    named = {
        (command.tenant_id, command.transaction_id)
        for command in commands
        if not isinstance(command, RecordTransactions)
    }
    zones = await queries.request_zones(conn, {command.tenant_id for command in commands})
    transactions = await queries.lock_transactions(conn, named) if named else {}
    touched = _touched(new, transactions.values())
    expired = [key for key in await queries.find_expired_holds(conn, _codes_of(touched)) if key not in named]
    if expired:
        transactions |= await queries.lock_transactions(conn, expired)
        touched |= _touched((), (transactions[key] for key in expired))
    wanted = _wanted(new)
    missing = wanted - await find_kept(conn, wanted) if wanted else set()
    accounts = await lock_accounts(conn, {key[:2] for key in touched}, alone=bool(missing))
    if missing:
        await make_balances(conn, missing, ((tenant_id, account) for (tenant_id, _), account in accounts.items()))
    book = Book(now, accounts, await lock_balances(conn, touched), transactions, zones=dict(await zones.fetchall()))
    await _look_up(conn, book, new)
    return book, expired


async def _look_up(conn: Connection, book: Book, new: Sequence[tuple[str, NewTransaction]]) -> None:
    """Completes the book by what is read and not locked: references that are taken, balances that are not kept."""
    if references := {(tenant_id, item.reference) for tenant_id, item in new if item.reference is not None}:
        book.references |= await queries.find_references(conn, references)
    conditions = {
        (tenant_id, condition.account, condition.currency) for tenant_id, item in new for condition in item.conditions
    }
    for tenant_id, code in {key[:2] for key in conditions - book.balances.keys() if key[:2] in book.accounts}:
        summed = {balance.currency: balance for balance in await list_running_balances(conn, tenant_id, code)}
        side = book.accounts[tenant_id, code].normal_side
        for key in conditions - book.balances.keys():
            if key[:2] == (tenant_id, code):
                empty = RunningBalance(code, key[2], side, is_kept=False)
                book.balances[key] = summed.get(key[2], empty)


def _touched(new: Iterable[tuple[str, NewTransaction]], transactions: Iterable[Transaction]) -> set[BalanceKey]:
    keys = {key for tenant_id, item in new for key in _keys(tenant_id, item.postings)}
    keys |= {(tenant_id, each.account, each.currency) for tenant_id, item in new for each in item.conditions}
    return keys | {key for known in transactions for key in _keys(known.tenant_id, (*known.postings, *known.held))}


def _wanted(new: Iterable[tuple[str, NewTransaction]]) -> set[BalanceKey]:
    """The balances that have to be kept from now on: those of holds, and those that a condition names."""
    keys: set[BalanceKey] = set()
    for tenant_id, item in new:
        if item.is_dry_run:
            continue
        keys |= {(tenant_id, condition.account, condition.currency) for condition in item.conditions}
        if item.is_pending:
            keys |= _keys(tenant_id, item.postings)
    return {key for key in keys if key[1] not in OF_PAYMENTS}


def _keys(tenant_id: str, postings: Iterable[Posting]) -> set[BalanceKey]:
    return {
        (tenant_id, account, posting.money.currency)
        for posting in postings
        for account in (posting.debit_account, posting.credit_account)
    }


def _codes_of(keys: Iterable[BalanceKey]) -> dict[str, set[str]]:
    codes: defaultdict[str, set[str]] = defaultdict(set)
    for tenant_id, code, _ in keys:
        codes[tenant_id].add(code)
    return codes


# ----------------------------------------------------------------------------------------------------------------------
# Decide


async def _record(book: Book, command: RecordTransactions, written: Written) -> Recorded | AtomicRefusal:
    """What became of each, or why there is none. Each sees what those before it left."""
    # A batch that may have to be forgotten as a whole is decided over a book of its own.
    within = book.fork() if command.is_atomic else book
    outcomes: list[Transaction | Rejected] = []
    changes: list[Change] = []
    async for item in in_portions(command.transactions):
        outcome = _recorded(within, command, item, changes)
        if command.is_atomic and isinstance(outcome, Rejected):
            return AtomicRefusal(command, outcome.error, len(outcomes))
        outcomes.append(outcome)
    for change in changes:
        if command.is_atomic:
            book.apply(change)
        written.append((change, command.origin))
    return Recorded(command, tuple(outcomes))


def _recorded(
    book: Book, command: RecordTransactions, item: NewTransaction | Rejected, changes: list[Change]
) -> Transaction | Rejected:
    if isinstance(item, Rejected):
        return item
    try:
        change = book.record(command.tenant_id, item, command.origin.trace.correlation_id)
    except LedgerError as error:
        return Rejected(error)
    if not item.is_dry_run:
        changes.append(_made(book, change))
    return change.after


def _decide(book: Book, command: PostHold | VoidHold | ExpireHold | ReverseTransaction) -> Change:
    key = command.tenant_id, command.transaction_id
    match command:
        case PostHold():
            return book.post(key, command.amounts)
        case VoidHold():
            return book.void(key)
        case ExpireHold():
            return book.expire(key)
        case ReverseTransaction():
            correlation_id = command.origin.trace.correlation_id
            return book.reverse(key, command.reversal_id, command.effective_at, command.reason, correlation_id)


def _made(book: Book, change: Change) -> Change:
    book.apply(change)
    return change


def _sweeping(hold: Transaction) -> Origin:
    """In whose name a hold expires; the trace is that of the request that made it."""
    return Origin(SWEEPER, None, Trace(hold.correlation_id))


# ----------------------------------------------------------------------------------------------------------------------
# Write


async def _write(conn: Connection, now: datetime, written: Written) -> None:
    new = [change.after for change, _ in written if change.before is None]
    if new:
        await queries.insert_transactions(conn, new)
        await queries.insert_accounts_of(conn, new)
    if holds := [transaction for transaction in new if transaction.status is Status.PENDING]:
        await queries.insert_hold_postings(conn, holds)
    if ended := [change.after for change, _ in written if change.before is not None]:
        await queries.save_ended(conn, ended)
    # Of several changes of one balance the last one has them all.
    balances = {key: balance for change, _ in written for key, balance in change.balances.items() if balance.is_kept}
    if balances:
        await save_balances(conn, [(key[0], balance) for key, balance in balances.items()])
    if entries := [_entry(change, origin) for change, origin in written if change.after.status is Status.POSTED]:
        await post_entries(conn, entries)
    defer_events(conn, [event_of(change, origin.trace, now) async for change, origin in in_portions(written)])
    defer_audit(conn, [_audit(change, origin) async for change, origin in in_portions(written)])


def _entry(change: Change, origin: Origin) -> Entry:
    transaction = change.after
    return Entry(
        tenant_id=transaction.tenant_id,
        id=transaction.id,
        kind=transaction.kind.value,
        source_id=transaction.id,
        correlation_id=origin.trace.correlation_id,
        postings=transaction.postings,
        effective_at=transaction.effective_at,
    )


_ACTIONS = {
    Status.PENDING: "transaction.hold",
    Status.POSTED: "transaction.post",
    Status.VOIDED: "transaction.void",
    Status.EXPIRED: "transaction.expire",
}


def _audit(change: Change, origin: Origin) -> AuditRecord:
    after, before = change.after, change.before
    return AuditRecord(
        tenant_id=after.tenant_id,
        origin=origin,
        action="transaction.reverse" if change.first else _ACTIONS[after.status],
        target=str(after.id),
        detail={
            "before": {"status": before.status} if before else None,
            "after": {"status": after.status},
            "amounts": _sums(after.postings),
            **({"reverses": str(change.first.id)} if change.first else {}),
        },
    )


def _sums(postings: Iterable[Posting]) -> dict[str, str]:
    """What the postings debit in all, by currency."""
    sums: dict[str, int] = {}
    for posting in postings:
        sums[posting.money.currency] = sums.get(posting.money.currency, 0) + posting.money.amount
    return {currency: format_amount(amount, currency) for currency, amount in sums.items()}
