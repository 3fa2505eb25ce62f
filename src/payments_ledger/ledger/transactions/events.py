"""The events of transactions: JSON with decimal strings, flat but for the list of postings."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from uuid_utils.compat import uuid7

from payments_ledger.commit.events import Event
from payments_ledger.ledger.transactions.book import Change
from payments_ledger.ledger.transactions.transaction import Status, Transaction
from payments_ledger.money import format_amount
from payments_ledger.telemetry.tracing import Trace

POSTED = "ledger.transaction.posted"
PENDING = "ledger.transaction.pending"
VOIDED = "ledger.transaction.voided"
EXPIRED = "ledger.transaction.expired"
REVERSED = "ledger.transaction.reversed"

TYPE_BY_STATUS = {
    Status.PENDING: PENDING,
    Status.POSTED: POSTED,
    Status.VOIDED: VOIDED,
    Status.EXPIRED: EXPIRED,
}


class EventPosting(BaseModel):
    """`amount` in major units."""

    debit: str
    credit: str
    amount: str
    currency: str


class TransactionEvent(BaseModel):
    """The body of each event of a transaction."""

    transaction_id: UUID
    tenant_id: str
    kind: str
    reference: str | None
    correlation_id: str
    occurred_at: datetime
    effective_at: datetime
    postings: list[EventPosting]


class TransactionReversed(TransactionEvent):
    """The body of ledger.transaction.reversed: `transaction_id` is the first, whose postings `reversal_id` mirrors.

    `kind` and `reference` are those of the first; `effective_at` and `postings` those of the reversal.
    """

    reversal_id: UUID


def event_of(change: Change, trace: Trace, at: datetime) -> Event:
    """The one event that tells of the change; its aggregate is the transaction, or the first if it reverses one."""
    after, first = change.after, change.first
    if first is None:
        body = TransactionEvent.model_construct(**_body(after, after, trace, at))
        return _event(after, TYPE_BY_STATUS[after.status], after.version, body, trace)
    # POSTED is where the statuses end, so the number after its version is free for its one reversal.
    reversed_ = TransactionReversed.model_construct(**_body(first, after, trace, at), reversal_id=after.id)
    return _event(first, REVERSED, first.version + 1, reversed_, trace)


def _body(aggregate: Transaction, moving: Transaction, trace: Trace, at: datetime) -> dict[str, Any]:
    return {
        "transaction_id": aggregate.id,
        "tenant_id": aggregate.tenant_id,
        "kind": aggregate.kind.value,
        "reference": aggregate.reference,
        "correlation_id": trace.correlation_id,
        "occurred_at": at,
        "effective_at": moving.effective_at,
        "postings": [
            EventPosting.model_construct(
                debit=posting.debit_account,
                credit=posting.credit_account,
                amount=format_amount(posting.money.amount, posting.money.currency),
                currency=posting.money.currency,
            )
            for posting in moving.postings
        ],
    }


def _event(aggregate: Transaction, type_: str, sequence: int, body: TransactionEvent, trace: Trace) -> Event:
    return Event(
        tenant_id=aggregate.tenant_id,
        id=uuid7(),
        type=type_,
        aggregate_id=aggregate.id,
        sequence=sequence,
        payload=body.model_dump_json(),
        trace=trace,
    )
