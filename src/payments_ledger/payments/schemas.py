"""Payments as they stand in requests and responses."""

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from payments_ledger.errors import Invalid, InvalidAmount, together
from payments_ledger.money import Money, exponent_of, format_amount, parse_amount, parse_money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.card_numbers import holds_card_number
from payments_ledger.validation.faults import invalid_body
from payments_ledger.web.bodies import Body
from payments_ledger.web.problems import Problem, problem_body

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


REQUEST_EXAMPLE: JsonDict = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-001"}
INTENT_EXAMPLE: JsonDict = {
    "id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "amount": "100.00",
    "currency": "BRL",
    "status": "CREATED",
    "customer_ref": "CUST-001",
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:00:00Z",
}
REFUSAL_EXAMPLE: JsonDict = json.loads(
    problem_body(
        InvalidAmount("JPY has 0 decimal places; the amount has more.").within("payment_intents", 1),
        instance="/v1/payment-intents/batch",
        correlation_id="f0fd655f-a48a-4186-ad6d-3af1fb44c51b",
    )
)


class PaymentIntentRequest(Body):
    """`amount` in major units (100.00), as a number or as text: exact either way, never a float."""

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST_EXAMPLE]})

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

    @classmethod
    def read(cls, value: Any) -> Self:
        """The request; raises Invalid with the faults of all its fields, those of amount and currency included."""
        try:
            request = cls.model_validate(value)
        except ValidationError as error:
            refusal = invalid_body(error)
            raise together([refusal, *_refusals_of_money(value, refusal)]) from None
        # Parsed now, so that its faults are reported with those of other parameters.
        _ = request.money
        return request

    @cached_property
    def money(self) -> Money:
        """Amount and currency, exact; raises Invalid, unless the request was `read`."""
        return parse_money(self.amount, self.currency)


class PaymentIntent(BaseModel):
    """`amount` is a decimal text with all the decimal places of its currency (ISO 4217)."""

    model_config = ConfigDict(json_schema_extra={"examples": [INTENT_EXAMPLE]})

    id: str
    amount: str
    currency: str
    status: Status
    customer_ref: str
    created_at: datetime
    updated_at: datetime


class PaymentIntentBatch(Body):
    """Up to 1,000 payment intents; each is judged by itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"payment_intents": [REQUEST_EXAMPLE, {**REQUEST_EXAMPLE, "amount": 10.5, "currency": "JPY"}]}]
        }
    )

    payment_intents: Annotated[
        # Anything else is not refused but gets an outcome of its own.
        list[Annotated[Any, WithJsonSchema({"anyOf": [{"$ref": "#/components/schemas/PaymentIntentRequest"}, {}]})]],
        Field(min_length=1, max_length=PAYMENTS_MAX),
    ]


class BatchOutcome(BaseModel):
    """What became of one payment intent: `status` is that of a request for it alone, with its response."""

    status: int
    payment_intent: PaymentIntent | None = None
    problem: Problem | None = None


class BatchOutcomes(BaseModel):
    """One outcome for each payment intent, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "outcomes": [
                        {"status": 201, "payment_intent": INTENT_EXAMPLE},
                        {"status": 422, "problem": REFUSAL_EXAMPLE},
                    ]
                }
            ]
        }
    )

    outcomes: list[BatchOutcome]


def _refusals_of_money(value: Any, refusal: Invalid) -> list[Invalid]:
    """What is wrong with amount and currency, as far as they have the form that the refusal does not speak of."""
    if not all(fault.path for fault in refusal.faults):
        # The whole is no object, or cannot be looked into.
        return []
    at_fault = {fault.path[0] for fault in refusal.faults}
    try:
        if not at_fault & {"amount", "currency"}:
            parse_money(value["amount"], value["currency"])
        elif "amount" not in at_fault:
            parse_amount(value["amount"])
        elif "currency" not in at_fault:
            exponent_of(value["currency"])
    except Invalid as error:
        return [error]
    return []


def payment_body(payment: Payment) -> bytes:
    """The payment as clients see it, to the byte; its fields are right by their types, and not validated again."""
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


async def outcomes_body(outcomes: Iterable[tuple[int, bytes]]) -> bytes:
    """BatchOutcomes, to the byte, from each outcome's status and the response to a request for it alone."""
    parts = [
        b'{"status":%d,"%s":%s}' % (status, b"payment_intent" if status < 400 else b"problem", response)
        async for status, response in in_portions(outcomes)
    ]
    return b'{"outcomes":[' + b",".join(parts) + b"]}"
