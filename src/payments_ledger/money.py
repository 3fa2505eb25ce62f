"""Money: a whole number of minor units of an ISO 4217 currency. Never a float, never rounded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation

from payments_ledger.errors import (
    CurrenciesNotLoaded,
    Invalid,
    InvalidAmount,
    UnknownCurrency,
    WithdrawnCurrency,
    together,
)

# What a PostgreSQL bigint holds; an amount beyond it is refused rather than stored in another type.
AMOUNT_MAX = 2**63 - 1

# Digits beyond those of any amount, so that its zeros may be written out.
_DECIMAL_TEXT = re.compile(r"[0-9]{1,32}(\.[0-9]{1,32})?", re.ASCII)
# More digits than any amount has; it drops zeros beyond them, and raises Inexact for any other digit.
_EXACT = Context(prec=64, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation])


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
    """Makes these the currencies that this process knows, and no others (ledger/currencies.py loads them)."""
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


def parse_number(amount: str | int | Decimal) -> Decimal:
    """The number that an amount is, whatever its currency; raises InvalidAmount.

    A text must be plain digits with or without a dot: no sign, exponent, blank, underscore or digit beyond ASCII.
    """
    if isinstance(amount, str) and not _DECIMAL_TEXT.fullmatch(amount):
        raise InvalidAmount("The amount must be written in plain digits with a dot, such as 100.00.")
    number = Decimal(amount)
    if not number.is_finite() or number < 0:
        raise InvalidAmount("The amount must be a number, and not below zero.")
    return number


def parse_amount(amount: str | int | Decimal) -> Decimal:
    """As parse_number, above zero."""
    number = parse_number(amount)
    if not number:
        raise InvalidAmount("The amount must be above zero.")
    return number


def parse_money(amount: str | int | Decimal, currency: str) -> Money:
    """Money from a decimal text or a number that was parsed from its text, in major units ("10.50" BRL).

    Raises UnknownCurrency, or InvalidAmount when the amount is not a whole number of minor units above zero (100.00 JPY
    is one, 10.5 JPY is not), or InvalidRequest with the faults of both.
    """
    refusals: list[Invalid] = []
    try:
        exponent = exponent_of(currency)
    except UnknownCurrency as error:
        refusals.append(error)
    try:
        number = parse_amount(amount)
    except InvalidAmount as error:
        refusals.append(error)
    if refusals:
        raise together(refusals)
    if number.adjusted() + exponent > len(str(AMOUNT_MAX)):
        raise InvalidAmount("The amount is too large.")
    try:
        minor_units = _EXACT.to_integral_exact(_EXACT.scaleb(number, exponent))
    except Inexact:
        raise InvalidAmount(f"{currency} has {exponent} decimal places; the amount has more.") from None
    return Money(int(minor_units), currency)


def parse_balance(amount: str | int | Decimal, currency: str) -> int:
    """Minor units from a decimal string or number in major units, which may be zero or below ("-10.50" BRL is -1050).

    Raises as parse_money does.
    """
    exponent_of(currency)
    is_negative = amount.startswith("-") if isinstance(amount, str) else Decimal(amount).is_signed()
    unsigned = amount.removeprefix("-") if isinstance(amount, str) else abs(Decimal(amount))
    if parse_number(unsigned) == 0:
        return 0
    minor_units = parse_money(unsigned, currency).amount
    return -minor_units if is_negative else minor_units


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
        if not _known:
            raise CurrenciesNotLoaded from None
        meant = code.upper()
        raise UnknownCurrency(
            f'{UnknownCurrency.message} Did you mean "{meant}"?' if meant in _known else None
        ) from None
