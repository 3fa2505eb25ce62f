"""Refunds as they stand in requests and responses."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic.config import JsonDict

from payments_ledger.money import format_amount
from payments_ledger.refunds.refund import Refund
from payments_ledger.validation.amounts import PositiveAmount
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.metadata import Metadata
from payments_ledger.validation.texts import no_controls
from payments_ledger.web.bodies import Body

REFUND_EXAMPLE: JsonDict = {
    "id": "01a20568-9b2c-7d11-8e55-0242ac120002",
    "payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "amount": "30.00",
    "currency": "BRL",
    "status": "SUCCEEDED",
    "reason": "Article returned",
    "reference": "RET-2026-0001",
    "metadata": {},
    "created_at": "2026-02-03T12:00:00Z",
}

_Reason = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(no_controls), AfterValidator(no_card_number)
]
Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(no_controls), AfterValidator(no_card_number)
]


class RefundRequest(Body):
    """`amount` in major units of the payment's currency; left out: all that is left.

    `reference` is the client's own name of the refund; the tenant can use it once, for ever.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": "30.00", "reference": "RET-2026-0001"}]})

    amount: PositiveAmount | None = None
    reason: _Reason | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


class PaymentRefund(BaseModel):
    """`amount` is a decimal text with all the decimal places of its currency (ISO 4217)."""

    model_config = ConfigDict(title="Refund", json_schema_extra={"examples": [REFUND_EXAMPLE]})

    id: str
    payment_intent_id: str
    amount: str
    currency: str
    status: str
    reason: str | None
    reference: str | None
    metadata: dict[str, str]
    created_at: datetime


def show_refund(refund: Refund) -> PaymentRefund:
    """Minor units become a decimal string in major units."""
    return PaymentRefund.model_construct(
        id=str(refund.id),
        payment_intent_id=str(refund.payment_id),
        amount=format_amount(refund.money.amount, refund.money.currency),
        currency=refund.money.currency,
        status=refund.status,
        reason=refund.reason,
        reference=refund.reference,
        metadata=dict(refund.metadata),
        created_at=refund.created_at,
    )


def refund_body(refund: Refund) -> bytes:
    """The refund as clients see it, to the byte."""
    return show_refund(refund).model_dump_json().encode()
