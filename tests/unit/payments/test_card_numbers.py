"""References that hold a card number are recognized, and those that only have digits in them are not."""

import pytest

from payments_ledger.payments.card_numbers import holds_card_number, passes_luhn


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111 - 1111 - 1111 - 1111",
        "4111\u20131111\u20131111\u20131111",
        "378282246310005",
        "3782 822463 10005",
        "4222222222222",
        "6304000000000000000",
        "paid with 5555555555554444, thanks",
        "CUST-7 4111111111111111 12 27",
        "x4111111111111111x",
        "\uff14\uff11\uff11\uff11 1111 1111 1111",
    ],
)
def test_a_card_number_is_recognized(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CUST-001",
        "4111111111111112",
        "411111111111",
        "41111111111111111111",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "2026-01-31 100",
        "4111x1111x1111x1111",
        "order:7b0d3c5e-1111-4111-8111-111111111111",
    ],
)
def test_other_digits_are_no_card_number(text: str) -> None:
    assert not holds_card_number(text)


@pytest.mark.parametrize(
    ("digits", "passes"), [("79927398713", True), ("79927398710", False), ("0", True), ("1", False)]
)
def test_luhn(digits: str, passes: bool) -> None:
    assert passes_luhn(digits) is passes
