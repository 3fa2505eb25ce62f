"""Money is exact: what cannot be a whole number of minor units is refused, never rounded."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.errors import InvalidAmount, InvalidRequest, UnknownCurrency
from payments_ledger.money import AMOUNT_MAX, Money, format_amount, parse_balance, parse_money
from tests.iso_4217 import EXPONENTS

currencies = st.sampled_from(sorted(EXPONENTS))
minor_units = st.integers(min_value=1, max_value=AMOUNT_MAX)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("100.00", "BRL", 10_000),
        ("100", "BRL", 10_000),
        (100, "BRL", 10_000),
        (Decimal("100.5"), "BRL", 10_050),
        (Decimal("1E+2"), "BRL", 10_000),
        ("0.01", "BRL", 1),
        (Decimal("9007199254740993.01"), "BRL", 900_719_925_474_099_301),
        ("9007199254740993.01", "BRL", 900_719_925_474_099_301),
        ("92233720368547758.07", "BRL", AMOUNT_MAX),
        (100, "JPY", 100),
        ("1.234", "KWD", 1234),
        ("007.50", "BRL", 750),
        ("1.000", "BRL", 100),
        ("100.00", "JPY", 100),
        (Decimal("100.00"), "JPY", 100),
        (Decimal("1." + "0" * 5000), "BRL", 100),
    ],
)
def test_an_amount_becomes_whole_minor_units(amount: str | int | Decimal, currency: str, minor: int) -> None:
    assert parse_money(amount, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0", "BRL"),
        ("0.00", "BRL"),
        (0, "BRL"),
        (-1, "BRL"),
        (Decimal("-0.01"), "BRL"),
        ("-1.00", "BRL"),
        ("+1.00", "BRL"),
        (Decimal("NaN"), "BRL"),
        (Decimal("Infinity"), "BRL"),
        (Decimal("1E+400"), "BRL"),
        (Decimal("1E-400"), "BRL"),
        (10**30, "BRL"),
        (Decimal(10**30), "BRL"),
        ("0.001", "BRL"),
        (Decimal("10.5"), "JPY"),
        (Decimal("10.50"), "JPY"),
        (Decimal("1." + "0" * 5000 + "1"), "BRL"),
        (Decimal("1E-999999999999999999"), "BRL"),
        (Decimal("1E+999999999999999999"), "BRL"),
        ("1.2345", "KWD"),
        ("92233720368547758.08", "BRL"),
        ("9223372036854775808", "JPY"),
        (" 100 ", "BRL"),
        ("1e5", "BRL"),
        ("1_000", "BRL"),
        ("1,00", "BRL"),
        ("1.", "BRL"),
        (".5", "BRL"),
        ("٣", "BRL"),
        ("", "BRL"),
        ("NaN", "BRL"),
        ("1" * 5000, "BRL"),
    ],
)
def test_an_amount_that_is_not_exact_is_refused(amount: str | int | Decimal, currency: str) -> None:
    with pytest.raises(InvalidAmount) as refusal:
        parse_money(amount, currency)
    assert [fault.path for fault in refusal.value.faults] == [("amount",)]


@pytest.mark.parametrize("currency", ["", "brl", "BR", "BRLX", "XYZ", "XAU", "XXX", "🪙🪙🪙"])
def test_what_is_no_currency_with_minor_units_is_refused(currency: str) -> None:
    with pytest.raises(UnknownCurrency):
        parse_money("1", currency)


@given(minor_units, currencies)
def test_formatting_and_parsing_are_inverse(minor: int, currency: str) -> None:
    assert parse_money(format_amount(minor, currency), currency) == Money(minor, currency)


@given(minor_units, currencies)
def test_a_number_and_its_text_are_the_same_money(minor: int, currency: str) -> None:
    text = format_amount(minor, currency)
    assert parse_money(Decimal(text), currency) == parse_money(text, currency)


@given(st.integers(min_value=-(10**30), max_value=10**30), currencies)
def test_a_formatted_amount_has_all_the_places_of_its_currency(minor: int, currency: str) -> None:
    text = format_amount(minor, currency)
    places = len(text.partition(".")[2])
    assert places == EXPONENTS[currency]
    assert Decimal(text).scaleb(places) == minor or abs(minor) > 10**28


# What looks like an amount, and sometimes is one.
texts = st.from_regex(r"[0-9]{1,21}(\.[0-9]{0,5})?", fullmatch=True) | st.text("0123456789.,+-eE_ ٣", max_size=24)


@given(texts | st.decimals(allow_nan=True, allow_infinity=True) | st.integers(), currencies)
def test_an_amount_is_exact_or_refused(amount: str | int | Decimal, currency: str) -> None:
    try:
        money = parse_money(amount, currency)
    except InvalidAmount:
        return
    assert Fraction(money.amount, 10 ** EXPONENTS[currency]) == Fraction(amount)


@given(minor_units, currencies, st.integers(1, 9), st.integers(1, 9))
def test_places_too_many_are_zeros_or_refused(minor: int, currency: str, digit: int, zeros: int) -> None:
    text = format_amount(minor, currency)
    longer = text + ("" if "." in text else ".") + "0" * zeros
    assert parse_money(longer, currency) == parse_money(Decimal(longer), currency) == Money(minor, currency)
    for amount in (f"{longer}{digit}", Decimal(f"{longer}{digit}")):
        with pytest.raises(InvalidAmount):
            parse_money(amount, currency)


def test_a_currency_in_small_letters_is_refused_with_a_hint() -> None:
    with pytest.raises(UnknownCurrency, match='Did you mean "BRL"'):
        parse_money("1", "brl")
    with pytest.raises(UnknownCurrency, match=r"minor units\.$"):
        parse_money("1", "xyz")


def test_amount_and_currency_are_refused_together() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_money("x", "XYZ")
    assert {fault.path for fault in refusal.value.faults} == {("amount",), ("currency",)}


@pytest.mark.parametrize(
    ("amount", "currency", "minor_units"),
    [
        ("0", "BRL", 0),
        ("0.00", "BRL", 0),
        ("-0", "BRL", 0),
        ("-10.50", "BRL", -1050),
        ("10.5", "BRL", 1050),
        (-3, "JPY", -3),
        (Decimal("-1.234"), "KWD", -1234),
    ],
)
def test_a_balance_may_be_zero_or_below(amount: str | int | Decimal, currency: str, minor_units: int) -> None:
    assert parse_balance(amount, currency) == minor_units


@pytest.mark.parametrize("amount", ["--1", "+1", "- 1", "1e3", "", "-", "0.001", Decimal("NaN"), Decimal("-Infinity")])
def test_a_balance_is_plain_digits_with_a_sign_at_most(amount: str | Decimal) -> None:
    with pytest.raises(InvalidAmount):
        parse_balance(amount, "BRL")
