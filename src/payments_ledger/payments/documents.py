"""Payments as they stand in requests and answers."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from payments_ledger.money import format_amount
from payments_ledger.payments.card_numbers import holds_card_number
from payments_ledger.payments.payment import Payment, Status
from payments_ledger.platform.problems import Problem

# What one bulk request may hold. All of it is one transaction, which takes a few hundred milliseconds.
PAYMENTS_MAX = 1000


def _number_or_text(amount: Any) -> Any:
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        raise ValueError("must be a number or a decimal text such as 100.00")
    return amount


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters or lone surrogates")
    return text


def _no_card_number(text: str) -> str:
    if holds_card_number(text):
        raise ValueError("must not hold what looks like a card number")
    return text


class PaymentIntentRequest(BaseModel):
    """`amount` in major units (100.00), as a number or as text: exact either way, never a float."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    amount: Annotated[
        Any,
        BeforeValidator(_number_or_text),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}], "examples": ["100.00"]}),
    ]
    currency: Annotated[str, Field(min_length=3, max_length=3, examples=["BRL"])]
    customer_ref: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128),
        AfterValidator(_printable),
        AfterValidator(_no_card_number),
    ]


class PaymentIntent(BaseModel):
    """`amount` is a decimal text with all the decimal places of its currency (ISO 4217)."""

    id: str
    amount: str
    currency: str
    status: Status
    customer_ref: str
    created_at: datetime
    updated_at: datetime


class PaymentIntentBatch(BaseModel):
    """Up to 1,000 payment intents; each is judged by itself."""

    model_config = ConfigDict(extra="forbid")

    payment_intents: Annotated[
        # Anything else is not refused but gets an outcome of its own.
        list[Annotated[Any, WithJsonSchema({"anyOf": [{"$ref": "#/components/schemas/PaymentIntentRequest"}, {}]})]],
        Field(min_length=1, max_length=PAYMENTS_MAX),
    ]


class BatchOutcome(BaseModel):
    """What became of one payment intent: `status` is that of a request for it alone, with its answer."""

    status: int
    payment_intent: PaymentIntent | None = None
    problem: Problem | None = None


class BatchOutcomes(BaseModel):
    """One outcome for each payment intent, in the order of the request."""

    outcomes: list[BatchOutcome]


def payment_body(payment: Payment) -> bytes:
    """The payment as clients see it, to the byte."""
    body = PaymentIntent.model_construct(
        id=str(payment.id),
        amount=format_amount(payment.money.amount, payment.money.currency),
        currency=payment.money.currency,
        status=payment.status,
        customer_ref=payment.customer_ref,
        created_at=payment.created_at,
        updated_at=payment.updated_at,
    )
    return body.model_dump_json().encode()


def outcomes_body(outcomes: Sequence[tuple[int, bytes]]) -> bytes:
    """BatchOutcomes, to the byte, from each outcome's status and the answer to a request for it alone."""
    parts = [
        b'{"status":%d,"%s":%s}' % (status, b"payment_intent" if status < 400 else b"problem", answer)
        for status, answer in outcomes
    ]
    return b'{"outcomes":[' + b",".join(parts) + b"]}"
