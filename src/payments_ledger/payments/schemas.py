"""Payments as they stand in requests and responses."""

import json
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
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
from payments_ledger.payments.payment import USUAL_TERMS, CancellationReason, CaptureMethod, Payment, Terms
from payments_ledger.payments.timeline import Line
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.amounts import PositiveAmount, UnparsedAmount
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.faults import invalid_body
from payments_ledger.validation.metadata import Metadata, MetadataChange
from payments_ledger.validation.texts import Matching, no_controls
from payments_ledger.web.bodies import Body
from payments_ledger.web.parameters import Instant
from payments_ledger.web.problems import Problem, problem_body

# What one bulk request may hold. All of it is one transaction, which takes a few hundred milliseconds.
PAYMENTS_MAX = 1000


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters or lone surrogates")
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
    "order_id": None,
    "capture_method": "automatic",
    "description": None,
    "metadata": {},
    "expires_at": None,
    "capture_requested_at": None,
    "amount_capturable": "0.00",
    "amount_captured": "0.00",
    "amount_refunded": "0.00",
    "amount_refundable": "0.00",
    "cancellation_reason": None,
    "failure_code": None,
    "failure_message": None,
}
REFUSAL_EXAMPLE: JsonDict = json.loads(
    problem_body(
        InvalidAmount("JPY has 0 decimal places; the amount has more.").within("payment_intents", 1),
        instance="/v1/payment-intents/batch",
        correlation_id="f0fd655f-a48a-4186-ad6d-3af1fb44c51b",
    )
)


_Description = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    AfterValidator(no_controls),
    AfterValidator(no_card_number),
]


class PaymentIntentRequest(Body):
    """`amount` in major units (100.00), as a number or as text: exact either way, never a float.

    A manual payment is settled once it was captured. From `expires_at` on, at most 366 days ahead, a payment is not
    confirmed, a manual one not captured.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    amount: UnparsedAmount
    currency: Annotated[str, Field(min_length=3, max_length=3, examples=["BRL"])]
    customer_ref: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128),
        AfterValidator(_printable),
        AfterValidator(no_card_number),
    ]
    capture_method: CaptureMethod | None = None
    description: _Description | None = None
    metadata: Metadata | None = None
    expires_at: Instant | None = None

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

    @property
    def terms(self) -> Terms:
        """Capture method and expiry."""
        if self.capture_method is None and self.expires_at is None:
            return USUAL_TERMS
        return Terms(self.capture_method or CaptureMethod.AUTOMATIC, self.expires_at)

    @property
    def options(self) -> tuple[str, ...]:
        """What is asked for besides money and customer_ref, as texts; what is left out, or usual, adds nothing."""
        options = {
            "capture_method": self.capture_method if self.capture_method is CaptureMethod.MANUAL else None,
            "description": self.description,
            "metadata": json.dumps(self.metadata, sort_keys=True) if self.metadata else None,
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
        }
        return tuple(f"{name}={value}" for name, value in options.items() if value is not None)


class CaptureRequest(Body):
    """`amount` in major units, at least one minor unit and at most what was authorized; left out: all of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": "80.00"}]})

    amount: PositiveAmount | None = None


class CancelRequest(Body):
    """Why the payment is given up."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "requested_by_customer"}]})

    reason: Literal["requested_by_customer", "duplicate", "fraudulent", "abandoned"] | None = None


class FailRequest(Body):
    """Why the payment failed: a code for programs, a message for people."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"failure_code": "card_declined", "failure_message": "The bank declined it."}]}
    )

    failure_code: Annotated[str, Matching("[a-z0-9_]{1,64}", "must be 1 to 64 of a to z, digits and _")]
    failure_message: _Description | None = None


class PaymentIntentChange(Body):
    """RFC 7396 (JSON Merge Patch): what is left out stays; a null description, or a key that is null, is removed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"description": "Two tickets", "metadata": {"seat": "7"}}]}
    )

    description: _Description | None = None
    metadata: MetadataChange | None = None

    @property
    def removes_description(self) -> bool:
        return self.description is None and "description" in self.model_fields_set


class PaymentIntent(BaseModel):
    """Each amount is a decimal text with all the decimal places of the currency (ISO 4217).

    `amount` is what was asked for; of a manual payment `amount_capturable` can be captured now. `amount_captured` is
    what was captured, or settled of an automatic payment, and `amount_refundable` what is left of it to give back.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [INTENT_EXAMPLE]})

    id: str
    amount: str
    currency: str
    status: Status
    customer_ref: str
    created_at: datetime
    updated_at: datetime
    order_id: str | None
    capture_method: CaptureMethod
    description: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    capture_requested_at: datetime | None
    amount_capturable: str
    amount_captured: str
    amount_refunded: str
    amount_refundable: str
    cancellation_reason: CancellationReason | None
    failure_code: str | None
    failure_message: str | None


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


class TimelineEvent(BaseModel):
    """One thing that happened to a payment intent.

    `type` is the event's type, `ledger.entry` or `event.published`; `by` is a user's id, `worker`, `orders` or
    `cli:<uid>`; `detail` has the id of what was made and amounts as decimal texts.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-01-31T12:00:00Z",
                    "type": "payment.capture_requested",
                    "by": "01a20568-0001-7000-8000-000000000001",
                    "correlation_id": "f0fd655f-a48a-4186-ad6d-3af1fb44c51b",
                    "detail": {
                        "status": "AUTHORIZED",
                        "amount": "100.00",
                        "currency": "BRL",
                        "capture_id": "01a20568-9b2c-7d11-8e55-0242ac120002",
                        "amount_captured": "80.00",
                        "amount_released": "20.00",
                    },
                }
            ]
        }
    )

    at: datetime
    type: str
    by: str
    correlation_id: str
    detail: dict[str, Any]


def show_line(line: Line) -> TimelineEvent:
    """A line of the timeline as clients see it."""
    return TimelineEvent.model_construct(
        at=line.place.at, type=line.type, by=line.by, correlation_id=line.correlation_id, detail=dict(line.detail)
    )


def payment_body(payment: Payment, at: datetime | None = None) -> bytes:
    """The payment as clients see it at a time, to the byte; by default just after its last change."""
    return show_payment(payment, at or payment.updated_at).model_dump_json().encode()


def show_payment(payment: Payment, at: datetime) -> PaymentIntent:
    """The payment at a time. Its fields are right by their types, and not validated again."""
    currency = payment.money.currency
    captured, failure = payment.captured, payment.failure
    return PaymentIntent.model_construct(
        id=str(payment.id),
        amount=format_amount(payment.money.amount, currency),
        currency=currency,
        status=payment.status,
        customer_ref=payment.customer_ref,
        created_at=payment.created_at,
        updated_at=payment.updated_at,
        order_id=payment.order_id,
        capture_method=payment.terms.capture_method,
        description=payment.description,
        metadata=dict(payment.metadata),
        expires_at=payment.terms.expires_at,
        capture_requested_at=captured.requested_at if captured else None,
        amount_capturable=format_amount(payment.amount_capturable(at), currency),
        amount_captured=format_amount(payment.amount_captured, currency),
        amount_refunded=format_amount(payment.amount_refunded, currency),
        amount_refundable=format_amount(payment.amount_refundable, currency),
        cancellation_reason=payment.cancellation_reason,
        failure_code=failure.code if failure else None,
        failure_message=failure.message if failure else None,
    )


async def outcomes_body(outcomes: Iterable[tuple[int, bytes]]) -> bytes:
    """BatchOutcomes, to the byte, from each outcome's status and the response to a request for it alone."""
    parts = [
        b'{"status":%d,"%s":%s}' % (status, b"payment_intent" if status < 400 else b"problem", response)
        async for status, response in in_portions(outcomes)
    ]
    return b'{"outcomes":[' + b",".join(parts) + b"]}"
