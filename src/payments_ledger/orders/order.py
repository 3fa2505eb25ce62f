"""An order as messages describe it: both spellings, an envelope or none, amounts from their digits to minor units."""

import json
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from payments_ledger.errors import InvalidAmount, LedgerError
from payments_ledger.money import Money, exponent_of, parse_money, parse_number
from payments_ledger.validation.card_numbers import no_card_number
from payments_ledger.validation.exact_json import parse_exact_json
from payments_ledger.validation.faults import invalid_body
from payments_ledger.validation.texts import Matching

ORDER_CONFIRMED = "order.confirmed"
ORDER_CANCELLED = "order.cancelled"
# The same charge as order.confirmed under a second key, asked for on our own exchange.
PAYMENT_CHARGE_REQUESTED = "payment.charge_requested"

# The orders service may leave the currency out.
CURRENCY_DEFAULT = "BRL"
# customer_ref is order:<order_id> and may have 128 characters.
ORDER_ID_LENGTH_MAX = 122
# A sum of floating-point prices is this close to what was meant (239.70000000000002). An amount farther away from a
# whole minor unit is not noise but another amount, and refused as it is over HTTP.
NOISE_MAX = Decimal("0.01")
# Beyond these digits before the point no currency's amount fits; Decimal would take its time over them.
MAGNITUDE_MAX = 30

# The names of the content in an envelope around it.
_CONTENT_NAMES = ("data", "payload")
_ORDER_ID = Matching(
    rf"[!-~]{{1,{ORDER_ID_LENGTH_MAX}}}", f"must be 1 to {ORDER_ID_LENGTH_MAX} printable ASCII characters, no blank"
)
_TENANT_ID = Matching(r"[A-Za-z0-9._:-]{1,64}", "must be 1 to 64 letters, digits and . _ : -")


class NotAnOrder(Exception):
    """The message can never become a payment; its text says why."""


def _string(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _number_or_string(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be a number or a decimal string")
    return value


class OrderMessage(BaseModel):
    """What every message of an order says. Names are read in snake_case and in camelCase; unknown ones are ignored."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )

    tenant_id: Annotated[str, BeforeValidator(_string), _TENANT_ID, Field(examples=["tenant_demo"])]
    # It becomes a part of customer_ref, which must not hold a card number either.
    order_id: Annotated[str, BeforeValidator(_string), _ORDER_ID, AfterValidator(no_card_number)]
    correlation_id: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})] = None


class OrderConfirmed(OrderMessage):
    """order.confirmed and payment.charge_requested: the order is to be paid. Zero is an order that costs nothing."""

    total_amount: Annotated[
        Any,
        BeforeValidator(_number_or_string),
        WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
    ]
    currency: Annotated[str | None, BeforeValidator(lambda value: value if value is None else _string(value))] = None

    def money(self) -> Money | None:
        """What is to be paid, None for nothing; raises NotAnOrder."""
        currency = CURRENCY_DEFAULT if self.currency is None else self.currency
        try:
            exponent_of(currency)
            amount = parse_number(self.total_amount)
            if not isinstance(self.total_amount, str):
                # Prices were added up in floating point. A string means each of its digits, as over HTTP.
                amount = _without_noise(amount, currency)
            return parse_money(amount, currency) if amount else None
        except LedgerError as error:
            raise NotAnOrder(f"total_amount or currency: {error.detail}") from None


class OrderCancelled(OrderMessage):
    """order.cancelled: the order is not to be paid, and if it was, the money goes back."""


def read_order[M: OrderMessage](kind: type[M], body: bytes) -> M:
    """The message as `kind`, out of its envelope if it has one; raises NotAnOrder."""
    try:
        content = parse_exact_json(body)
    except json.JSONDecodeError as error:
        raise NotAnOrder(f"not JSON: {error.msg}") from None
    if not isinstance(content, dict):
        raise NotAnOrder("not a JSON object")
    for name in _CONTENT_NAMES:
        if isinstance(content.get(name), dict):
            # What the content says stands over what the envelope says.
            content = content | content[name]
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise NotAnOrder(invalid_body(error).detail) from None


def _without_noise(number: Decimal, currency: str) -> Decimal:
    """The amount in whole minor units if it is as close to them as floating-point sums are; raises InvalidAmount."""
    exponent = exponent_of(currency)
    if number.adjusted() > MAGNITUDE_MAX:
        raise InvalidAmount("The amount is too large.")
    unit = Decimal(1).scaleb(-exponent)
    with localcontext(prec=MAGNITUDE_MAX + 20):
        rounded = number.quantize(unit, ROUND_HALF_EVEN)
        if abs(number - rounded) > unit * NOISE_MAX:
            raise InvalidAmount(f"{currency} has {exponent} decimal places; the amount has more.")
    return rounded
