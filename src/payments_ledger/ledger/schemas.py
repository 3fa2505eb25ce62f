"""Entries, balances and periods as they stand in requests and responses."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from payments_ledger.ledger.accounts import AccountType
from payments_ledger.ledger.entry import TRANSACTION_KINDS, Balance, PostedEntry, Posting
from payments_ledger.ledger.period import Period
from payments_ledger.money import format_amount
from payments_ledger.web.parameters import Instant


def _period(
    start: Annotated[Instant | None, Query(alias="from", description="Inclusive; UTC without a zone")] = None,
    end: Annotated[Instant | None, Query(alias="to", description="Exclusive; UTC without a zone")] = None,
) -> Period:
    return Period(start, end)


# All of time, or the part of it that a request's `from` and `to` name.
RequestedPeriod = Annotated[Period, Depends(_period)]


class EntryLine(BaseModel):
    """One side of a posting: each posting is shown as a DEBIT and a CREDIT of the same amount."""

    side: Literal["DEBIT", "CREDIT"]
    account: str
    amount: str
    currency: str


class LedgerEntry(BaseModel):
    """Each posting is two lines, DEBIT before CREDIT, of the same amount: a decimal string in major units.

    The entry of a ledger transaction has a `transaction_id`, and null in place of a payment.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-9b2c-7d11-8e55-0242ac120002",
                    "payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
                    "posted_at": "2026-01-31T12:00:01Z",
                    "lines": [
                        {"side": "DEBIT", "account": "CASH", "amount": "100.00", "currency": "BRL"},
                        {"side": "CREDIT", "account": "REVENUE", "amount": "100.00", "currency": "BRL"},
                    ],
                }
            ]
        }
    )

    id: str
    payment_intent_id: str | None
    posted_at: datetime
    lines: list[EntryLine]
    # Entries of payments stay as they were before there were others.
    transaction_id: Annotated[str | None, Field(exclude_if=lambda id_: id_ is None)] = None


class AccountBalance(BaseModel):
    """`balance` is positive on the account's normal side (debit for assets and expenses)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "CASH",
                    "type": "asset",
                    "currency": "BRL",
                    "debits_total": "100.00",
                    "credits_total": "0.00",
                    "balance": "100.00",
                }
            ]
        }
    )

    account: str
    type: AccountType
    currency: str
    debits_total: str
    credits_total: str
    balance: str


def show_entry(posted: PostedEntry) -> LedgerEntry:
    """Two lines for each posting; minor units become decimal strings in major units."""
    entry = posted.entry
    is_of_transaction = entry.kind in TRANSACTION_KINDS
    return LedgerEntry(
        id=str(entry.id),
        payment_intent_id=None if is_of_transaction else str(entry.subject_id or entry.source_id),
        posted_at=posted.posted_at,
        lines=[line for posting in entry.postings for line in _lines(posting)],
        transaction_id=str(entry.source_id) if is_of_transaction else None,
    )


def _lines(posting: Posting) -> tuple[EntryLine, EntryLine]:
    currency = posting.money.currency
    amount = format_amount(posting.money.amount, currency)
    return (
        EntryLine(side="DEBIT", account=posting.debit_account, amount=amount, currency=currency),
        EntryLine(side="CREDIT", account=posting.credit_account, amount=amount, currency=currency),
    )


def show_balance(balance: Balance) -> AccountBalance:
    """Minor units become decimal strings in major units, with the digits of the currency (ISO 4217)."""
    currency = balance.currency
    return AccountBalance(
        account=balance.account,
        type=balance.type,
        currency=currency,
        debits_total=format_amount(balance.debits_total, currency),
        credits_total=format_amount(balance.credits_total, currency),
        balance=format_amount(balance.balance, currency),
    )
