"""What a list of payments is filtered by, as it stands in requests."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import AfterValidator, StringConstraints

from payments_ledger.errors import InvalidAmount, InvalidParameter, UnknownCurrency
from payments_ledger.ledger.schemas import RequestedPeriod
from payments_ledger.money import exponent_of, parse_money, parse_number
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.listing import PaymentFilter
from payments_ledger.validation.texts import no_controls
from payments_ledger.web.metadata_filter import MetadataFilter

_Reference = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(no_controls)]
_Amount = Annotated[
    str | None, Query(description="Major units of `currency`, which it needs; inclusive", examples=["10.00"])
]


def _filter(
    period: RequestedPeriod,
    metadata: MetadataFilter,
    status: Annotated[tuple[Status, ...], Query(description="Repeatable: in any of these statuses")] = (),
    customer_ref: Annotated[_Reference | None, Query(description="Of this customer", examples=["CUST-001"])] = None,
    order_id: Annotated[_Reference | None, Query(description="The one of this order")] = None,
    currency: Annotated[str | None, Query(description="In this currency (ISO 4217)", examples=["BRL"])] = None,
    amount_min: _Amount = None,
    amount_max: _Amount = None,
) -> PaymentFilter:
    _require_currency(currency, is_needed=amount_min is not None or amount_max is not None)
    least, most = _bound("amount_min", amount_min, currency), _bound("amount_max", amount_max, currency)
    if least is not None and most is not None and least > most:
        raise InvalidParameter("amount_min", "amount_min must not be above amount_max.")
    return PaymentFilter(
        statuses=status,
        customer_ref=customer_ref,
        order_id=order_id,
        currency=currency,
        amount_min=least,
        amount_max=most,
        metadata=metadata,
        period=period,
    )


RequestedFilter = Annotated[PaymentFilter, Depends(_filter)]


def _require_currency(currency: str | None, *, is_needed: bool) -> None:
    if currency is None:
        if is_needed:
            raise InvalidParameter("currency", "currency is required with amount_min and amount_max.")
        return
    try:
        exponent_of(currency)
    except UnknownCurrency as error:
        raise InvalidParameter("currency", error.detail) from None


def _bound(name: str, text: str | None, currency: str | None) -> int | None:
    """Minor units of the currency; raises InvalidParameter. Zero is a bound, though no payment's amount."""
    if text is None or currency is None:
        return None
    try:
        return parse_money(text, currency).amount if parse_number(text) else 0
    except InvalidAmount as error:
        raise InvalidParameter(name, error.detail) from None
