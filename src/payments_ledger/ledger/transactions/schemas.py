"""Transactions as they stand in requests and responses: amounts as decimal strings, postings and lines side by side.

Long because it is every model of those routes, with an example each.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict

from payments_ledger.errors import Fault, Invalid, InvalidRequest, together
from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.chart.schemas import (
    BALANCE_EXAMPLE,
    Code,
    CurrencyCode,
    RunningBalanceDocument,
    parse_named_balance,
    show_running_balance,
)
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.lines import Line, as_lines, pair
from payments_ledger.ledger.transactions.queries import Note
from payments_ledger.ledger.transactions.transaction import (
    POSTINGS_MAX,
    Condition,
    Kind,
    NewTransaction,
    Status,
    Transaction,
)
from payments_ledger.money import AMOUNT_MAX, Money, format_amount, parse_money
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.amounts import UnparsedAmount
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.metadata import Metadata
from payments_ledger.validation.texts import no_controls
from payments_ledger.web.bodies import Body
from payments_ledger.web.parameters import Instant, parse_instant
from payments_ledger.web.problems import Problem

# What one bulk request may hold. All of it is one transaction of the database.
TRANSACTIONS_MAX = 1000
NOTE_LENGTH_MAX = 2000

Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(no_controls), AfterValidator(no_card_number)
]
Description = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(no_controls), AfterValidator(no_card_number)
]

POSTING_EXAMPLE: JsonDict = {"debit": "CASH", "credit": "WALLET.C001", "amount": "100.00", "currency": "BRL"}
REQUEST_EXAMPLE: JsonDict = {
    "reference": "deposit-2026-0001",
    "description": "Deposit by Pix",
    "postings": [POSTING_EXAMPLE],
    "metadata": {"channel": "app"},
}
TRANSACTION_EXAMPLE: JsonDict = {
    "id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "kind": "transaction",
    "status": "POSTED",
    "reference": "deposit-2026-0001",
    "description": "Deposit by Pix",
    "postings": [POSTING_EXAMPLE],
    "lines": [
        {"account": "CASH", "side": "DEBIT", "amount": "100.00", "currency": "BRL"},
        {"account": "WALLET.C001", "side": "CREDIT", "amount": "100.00", "currency": "BRL"},
    ],
    "recorded_at": "2026-01-31T12:00:00Z",
    "effective_at": "2026-01-31T12:00:00Z",
    "book_date": "2026-01-31",
    "expires_at": None,
    "metadata": {"channel": "app"},
    "reverses": None,
    "reversed_by": None,
    "reason": None,
    "released": [],
    "balances_after": [{**BALANCE_EXAMPLE, "pending_debits": "0.00", "available": "100.00"}],
    "dry_run": False,
}


class PostingTerms(Body):
    """`amount` moves from the credited account to the debited one, in major units."""

    debit: Code
    credit: Code
    amount: UnparsedAmount
    currency: CurrencyCode


class LineTerms(Body):
    """One side of a transaction; in each currency the sides must have the same sum."""

    account: Code
    side: Literal["DEBIT", "CREDIT"]
    amount: UnparsedAmount
    currency: CurrencyCode


class ConditionTerms(Body):
    """What must be true of an account before the transaction: at least so much available, or a version, or both."""

    account: Code
    currency: CurrencyCode
    available_min: UnparsedAmount | None = None
    version: Annotated[int, Field(ge=0, strict=True)] | None = None


class TransactionRequest(Body):
    """Either `postings` or `lines`. Lines are paired into postings in a documented, deterministic way.

    A pending transaction holds what it would post, until it is posted, voided, or `expires_at`. Without `effective_at`
    it is effective when it is recorded. A dry run checks everything and records nothing.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    _postings: tuple[Posting, ...]
    _lines: tuple[Line, ...]
    _conditions: tuple[Condition, ...]

    reference: Reference | None = None
    description: Description | None = None
    effective_at: Instant | None = None
    status: Literal["posted", "pending"] = "posted"
    expires_at: Instant | None = None
    metadata: Metadata | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False
    conditions: Annotated[list[ConditionTerms], Field(max_length=POSTINGS_MAX)] | None = None
    postings: Annotated[list[PostingTerms], Field(min_length=1, max_length=POSTINGS_MAX)] | None = None
    lines: Annotated[list[LineTerms], Field(min_length=2, max_length=POSTINGS_MAX)] | None = None

    @classmethod
    def read(cls, value: Any) -> Self:
        """The request; raises Invalid with all its faults, or Unbalanced."""
        request = super().read(value)
        refusals: list[Invalid] = []
        if (request.postings is None) == (request.lines is None):
            refusals.append(InvalidRequest([Fault("needs either postings or lines")]))
        if request.expires_at is not None and request.status != "pending":
            refusals.append(InvalidRequest([Fault("only a pending transaction expires", ("expires_at",))]))
        request._postings = _each("postings", request.postings, _posting, refusals)
        request._lines = _each("lines", request.lines, _line, refusals)
        request._conditions = _each("conditions", request.conditions, _condition, refusals)
        if refusals:
            raise together(refusals)
        if request.lines is not None:
            request._postings = pair(request._lines)
        return request

    def transaction(self, id_: Any) -> NewTransaction:
        """What is to be recorded under the id (UUIDv7), of a request that was `read`."""
        return NewTransaction(
            id=id_,
            postings=self._postings,
            lines=self._lines,
            is_pending=self.status == "pending",
            effective_at=self.effective_at,
            expires_at=self.expires_at,
            reference=self.reference,
            description=self.description,
            metadata=self.metadata or {},
            conditions=self._conditions,
            is_dry_run=self.dry_run,
        )

    @property
    def asked_for(self) -> str:
        """The request as text, whatever its spelling was."""
        return json.dumps(
            {
                "postings": [
                    [each.debit_account, each.credit_account, each.money.amount, each.money.currency]
                    for each in self._postings
                ],
                "lines": [[each.account, each.side, each.amount, each.currency] for each in self._lines],
                "conditions": [
                    [each.account, each.currency, each.available_min, each.version] for each in self._conditions
                ],
                "reference": self.reference,
                "description": self.description,
                "effective_at": self.effective_at.isoformat() if self.effective_at else None,
                "expires_at": self.expires_at.isoformat() if self.expires_at else None,
                "status": self.status,
                "metadata": self.metadata or {},
                "dry_run": self.dry_run,
            },
            sort_keys=True,
        )


class TransactionBatch(Body):
    """Up to 1,000 transactions: all or none (atomic), or each by itself. Each sees what those before it left."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"mode": "independent", "transactions": [REQUEST_EXAMPLE]}]}
    )

    mode: Literal["atomic", "independent"]
    transactions: Annotated[
        # Anything else is not refused but gets an outcome of its own.
        list[Annotated[Any, WithJsonSchema({"anyOf": [{"$ref": "#/components/schemas/TransactionRequest"}, {}]})]],
        Field(min_length=1, max_length=TRANSACTIONS_MAX),
    ]


class PostRequest(Body):
    """`amounts` in major units, one for each posting in order, at most what is held; left out: all of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True, json_schema_extra={"examples": [{"amounts": ["80.00"]}]})

    amounts: Annotated[list[UnparsedAmount], Field(min_length=1, max_length=POSTINGS_MAX)] | None = None


def _original_or_instant(value: object) -> object:
    if value == "original":
        return value
    try:
        return parse_instant(value)
    except ValueError as error:
        raise ValueError(f'must be "original" or a time: it {error}') from None


class ReverseRequest(Body):
    """`effective_at` is "original", or a time that is not before the first transaction's."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"effective_at": "original", "reason": "posted to the wrong wallet"}]}
    )

    effective_at: Annotated[
        Any,
        BeforeValidator(_original_or_instant),
        WithJsonSchema({"anyOf": [{"const": "original"}, {"type": "string", "format": "date-time"}]}),
    ]
    reason: Description | None = None


def _readable(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("must not hold control characters or lone surrogates")
    return text


class NoteRequest(Body):
    """What is to be said of the transaction."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Confirmed with the customer by phone."}]})

    text: Annotated[
        str,
        StringConstraints(min_length=1, max_length=NOTE_LENGTH_MAX),
        AfterValidator(_readable),
        AfterValidator(no_card_number),
    ]


class PostingDocument(BaseModel):
    """`amount` moves from the credited account to the debited one."""

    debit: str
    credit: str
    amount: str
    currency: str


class LineDocument(BaseModel):
    """All that the transaction moves on one side of an account in one currency."""

    account: str
    side: Literal["DEBIT", "CREDIT"]
    amount: str
    currency: str


class TransactionDocument(BaseModel):
    """A transaction. Amounts are decimal strings in major units.

    `postings` of a PENDING one are held, of a POSTED one in the books; `released` is what a hold held beyond what was
    posted. `balances_after` are those of accounts with limits, after its last change. `id` is null in a dry run.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [TRANSACTION_EXAMPLE]})

    id: str | None = None
    kind: Kind
    status: Status
    reference: str | None = None
    description: str | None = None
    postings: list[PostingDocument]
    lines: list[LineDocument]
    recorded_at: datetime
    effective_at: datetime
    book_date: str
    expires_at: datetime | None = None
    metadata: dict[str, str]
    reverses: str | None = None
    reversed_by: str | None = None
    reason: str | None = None
    released: list[PostingDocument]
    balances_after: list[RunningBalanceDocument]
    dry_run: bool


class TransactionOutcome(BaseModel):
    """What became of one transaction: `status` is that of a request for it alone, with its response."""

    status: int
    transaction: TransactionDocument | None = None
    problem: Problem | None = None


class TransactionOutcomes(BaseModel):
    """One outcome for each transaction, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"outcomes": [{"status": 201, "transaction": TRANSACTION_EXAMPLE}]}]}
    )

    outcomes: list[TransactionOutcome]


class NoteDocument(BaseModel):
    """`author` is a user's id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-9b2c-7d11-8e55-0242ac120002",
                    "transaction_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
                    "text": "Confirmed with the customer by phone.",
                    "author": "01a20568-0001-7000-8000-000000000001",
                    "created_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    id: str
    transaction_id: str
    text: str
    author: str
    created_at: datetime


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def _each[T, R](name: str, terms: Sequence[T] | None, read: Any, refusals: list[Invalid]) -> tuple[R, ...]:
    """What is read of each; the refusals are added to those there are, at their places."""
    found: list[R] = []
    for place, each in enumerate(terms or ()):
        try:
            found.append(read(each))
        except Invalid as error:
            refusals.append(error.within(name, place))
    return tuple(found)


def _posting(terms: PostingTerms) -> Posting:
    money = parse_money(terms.amount, terms.currency)
    if terms.debit == terms.credit:
        raise InvalidRequest([Fault("must be another account than the debited one", ("credit",))])
    return Posting(terms.debit, terms.credit, money)


def _line(terms: LineTerms) -> Line:
    money = parse_money(terms.amount, terms.currency)
    return Line(terms.account, Side(terms.side.lower()), money.amount, money.currency)


def _condition(terms: ConditionTerms) -> Condition:
    if terms.available_min is None and terms.version is None:
        raise InvalidRequest([Fault("needs available_min or version")])
    least = None
    if terms.available_min is not None:
        least = parse_named_balance("available_min", terms.available_min, terms.currency)
    else:
        parse_named_balance("currency", 0, terms.currency)
    return Condition(terms.account, terms.currency, least, terms.version)


def sums_of(postings: Iterable[Posting]) -> list[Money]:
    """What the postings debit in all, by currency, as policies compare it; never more than an amount can be."""
    sums: dict[str, int] = {}
    for posting in postings:
        sums[posting.money.currency] = sums.get(posting.money.currency, 0) + posting.money.amount
    return [Money(min(amount, AMOUNT_MAX), currency) for currency, amount in sums.items()]


# ----------------------------------------------------------------------------------------------------------------------
# Showing


def show_transaction(transaction: Transaction, *, is_dry_run: bool = False) -> TransactionDocument:
    """Minor units become decimal strings in major units; the fields are right by their types, and not validated."""
    return TransactionDocument.model_construct(
        id=None if is_dry_run else str(transaction.id),
        kind=transaction.kind,
        status=transaction.status,
        reference=transaction.reference,
        description=transaction.description,
        postings=_shown(transaction.postings),
        lines=[
            LineDocument.model_construct(
                account=line.account,
                side="DEBIT" if line.side is Side.DEBIT else "CREDIT",
                amount=format_amount(line.amount, line.currency),
                currency=line.currency,
            )
            for line in as_lines(transaction.postings)
        ],
        recorded_at=transaction.recorded_at,
        effective_at=transaction.effective_at,
        book_date=transaction.effective_at.date().isoformat(),
        expires_at=transaction.expires_at,
        metadata=dict(transaction.metadata),
        reverses=_text(transaction.reverses),
        reversed_by=_text(transaction.reversed_by),
        reason=transaction.reason,
        released=_shown(transaction.released),
        balances_after=[show_running_balance(balance) for balance in transaction.balances_after],
        dry_run=is_dry_run,
    )


def transaction_body(transaction: Transaction) -> bytes:
    """The transaction as clients see it, to the byte."""
    return show_transaction(transaction).model_dump_json().encode()


def dry_run_body(transaction: Transaction) -> bytes:
    """What the transaction would be, to the byte: without an id."""
    return show_transaction(transaction, is_dry_run=True).model_dump_json().encode()


def show_note(note: Note) -> NoteDocument:
    """The note and who wrote it."""
    return NoteDocument(
        id=str(note.id),
        transaction_id=str(note.transaction_id),
        text=note.text,
        author=note.author,
        created_at=note.created_at,
    )


def note_body(note: Note) -> bytes:
    """The note as clients see it, to the byte."""
    return show_note(note).model_dump_json().encode()


async def outcomes_body(outcomes: Iterable[tuple[int, bytes]]) -> bytes:
    """TransactionOutcomes, to the byte, from each outcome's status and the response to a request for it alone."""
    parts = [
        b'{"status":%d,"%s":%s}' % (status, b"transaction" if status < 400 else b"problem", response)
        async for status, response in in_portions(outcomes)
    ]
    return b'{"outcomes":[' + b",".join(parts) + b"]}"


def _shown(postings: Iterable[Posting]) -> list[PostingDocument]:
    return [
        PostingDocument.model_construct(
            debit=posting.debit_account,
            credit=posting.credit_account,
            amount=format_amount(posting.money.amount, posting.money.currency),
            currency=posting.money.currency,
        )
        for posting in postings
    ]


def _text(id_: object) -> str | None:
    return None if id_ is None else str(id_)
