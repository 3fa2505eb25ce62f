"""Amounts in bodies: numbers or decimal texts in major units, exact either way, never floats."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from payments_ledger.errors import InvalidAmount
from payments_ledger.money import parse_amount

_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string"}], "examples": ["100.00"]}


def _number_or_text(amount: Any) -> Any:
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        raise ValueError("must be a number or a decimal text such as 100.00")
    return amount


def _positive(amount: Any) -> Decimal:
    try:
        return parse_amount(_number_or_text(amount))
    except InvalidAmount as error:
        raise ValueError(error.detail) from None


# As it came: what it is worth only its currency tells, which is another field.
UnparsedAmount = Annotated[Any, BeforeValidator(_number_or_text), WithJsonSchema(_SCHEMA)]
# Above zero, in major units of a currency that is not in the body.
PositiveAmount = Annotated[Decimal, BeforeValidator(_positive), WithJsonSchema(_SCHEMA)]
