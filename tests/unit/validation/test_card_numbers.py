"""References that hold a card number are recognized, and those that only have digits in them are not."""

import random
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.validation.card_numbers import LENGTH_MAX, LENGTH_MIN, holds_card_number


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
        "4111.1111.1111.1111",
        "4111/1111/1111/1111",
        "4111_1111_1111_1111",
        "4111,1111,1111,1111",
        "4111 - 1111.1111__1111",
        "card:4111111111111111;",
        "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 4111111111111111",
        # A UUID in a longer text is a text with digits in it.
        "order 41111111-1111-1111-ffff-ffffffffffff",
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
        "x4111111111111111x",
        "4111111111111111x",
        "é4111111111111111",
        "4111:1111:1111:1111",
        "41111111-1111-1111-0000-000000000000",
        "41111111-1111-1111-FFFF-FFFFFFFFFFFF",
        "order:7b0d3c5e-1111-4111-8111-111111111111",
    ],
)
def test_other_digits_are_no_card_number(text: str) -> None:
    assert not holds_card_number(text)


def passes_luhn(digits: str) -> bool:
    """Digit by digit, as ISO/IEC 7812-1, annex B, describes it; the engine takes differences of running sums."""
    plain = sum(int(digit) for digit in digits[-1::-2])
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (plain + doubled) % 10 == 0


@given(st.lists(st.text("0123456789", min_size=1, max_size=8), min_size=1, max_size=12))
def test_a_card_number_is_any_run_of_whole_groups_that_passes_luhn(groups: list[str]) -> None:
    runs = ["".join(groups[start:end]) for start in range(len(groups)) for end in range(start + 1, len(groups) + 1)]
    is_card = any(LENGTH_MIN <= len(digits) <= LENGTH_MAX and passes_luhn(digits) for digits in runs)
    assert holds_card_number(" ".join(groups)) is is_card


def test_no_random_uuid_is_taken_for_a_card_number() -> None:
    assert not any(holds_card_number(str(UUID(int=random.getrandbits(128), version=4))) for _ in range(20_000))


@pytest.mark.parametrize("text", ["1 " * 64, "1" * 128, "4111111111111112 " * 7, "1.1" * 42, "1a" * 64])
def test_a_long_reference_takes_no_longer_than_its_length_deserves(text: str) -> None:
    """A thousand of them, as a bulk request may hold; a test of every part for itself took more than a second."""
    began = time.thread_time()
    for _ in range(1000):
        holds_card_number(text)
    assert time.thread_time() - began < 0.3
