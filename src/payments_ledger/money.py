"""Money: a whole number of minor units of an ISO 4217 currency. Never a float, never rounded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from payments_ledger.errors import CurrenciesNotLoaded, InvalidAmount, UnknownCurrency, WithdrawnCurrency

# What a PostgreSQL bigint holds; an amount beyond it is refused rather than stored in another type.
AMOUNT_MAX = 2**63 - 1

# Plain digits only: no sign, exponent, blank, underscore or non-ASCII digit is an amount.
_DECIMAL_TEXT = re.compile(r"[0-9]{1,32}(\.[0-9]{1,8})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency (ISO 4217) whose amounts have `exponent` decimal places.

    `valid_until` is the last day (UTC) on which a payment can be created in it; None: no end is known.
    """

    code: str
    exponent: int
    valid_until: date | None = None


_known: dict[str, Currency] = {}


def learn_currencies(currencies: Iterable[Currency]) -> None:
    """Makes these the currencies that this process knows, and no others (currencies.py loads them)."""
    global _known
    _known = {currency.code: currency for currency in currencies}


@dataclass(frozen=True, slots=True)
class Money:
    """An amount above zero: `amount` minor units (1050 is BRL 10.50 and JPY 1,050) of `currency` (ISO 4217)."""

    amount: int
    currency: str

    def __post_init__(self) -> None:
        if not 0 < self.amount <= AMOUNT_MAX:
            raise InvalidAmount(f"The amount must be above zero and at most {AMOUNT_MAX} minor units.")
        exponent_of(self.currency)

    def __str__(self) -> str:
        return f"{format_amount(self.amount, self.currency)} {self.currency}"


def exponent_of(currency: str) -> int:
    """The number of decimal places of a currency (BRL 2, JPY 0, KWD 3), withdrawn or not; raises UnknownCurrency.

    Raises CurrenciesNotLoaded in a process that has not learned any: nobody then knows what an amount means.
    """
    return _currency(currency).exponent


def require_in_use(currency: str, day: date) -> None:
    """Raises WithdrawnCurrency if no payment can be created in the currency on that day, or as `exponent_of` does."""
    valid_until = _currency(currency).valid_until
    if valid_until is not None and day > valid_until:
        raise WithdrawnCurrency


def parse_money(amount: str | int | Decimal, currency: str) -> Money:
    """Money from a decimal text or a number that was parsed from its text, in major units ("10.50" BRL).

    Raises UnknownCurrency, or InvalidAmount when the amount is not a whole number of minor units above zero: more
    decimal places than the currency has are an error even when they are zeros (100.00 JPY).
    """
    exponent = exponent_of(currency)
    if isinstance(amount, str):
        if not _DECIMAL_TEXT.fullmatch(amount):
            raise InvalidAmount("The amount must be written in plain digits with a dot, such as 100.00.")
        amount = Decimal(amount)
    number = Decimal(amount)
    if not number.is_finite() or number <= 0:
        raise InvalidAmount("The amount must be a number above zero.")
    if number.adjusted() + exponent > len(str(AMOUNT_MAX)):
        raise InvalidAmount("The amount is too large.")
    _, digits, places = number.as_tuple()
    assert isinstance(places, int)
    if -places > exponent:
        raise InvalidAmount(f"{currency} has {exponent} decimal places; the amount has {-places}.")
    return Money(int("".join(map(str, digits))) * 10 ** (places + exponent), currency)


def format_amount(amount: int, currency: str) -> str:
    """`amount` minor units as a decimal text with all the currency's places: (10000, "BRL") is "100.00"."""
    exponent = exponent_of(currency)
    if exponent == 0:
        return str(amount)
    sign = "-" if amount < 0 else ""
    digits = str(abs(amount)).rjust(exponent + 1, "0")
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"


def _currency(code: str) -> Currency:
    try:
        return _known[code]
    except KeyError:
        raise UnknownCurrency if _known else CurrenciesNotLoaded from None
