"""Card numbers, so that none is kept by accident: one of them would put the whole ledger under PCI DSS."""

import re
from itertools import accumulate

# ISO/IEC 7812: 13 to 19 digits. People write them in groups, with blanks or dashes between.
LENGTH_MIN, LENGTH_MAX = 13, 19

_GROUPED_DIGITS = re.compile(r"\d+(?:[ \u2010-\u2015-]+\d+)*")
_DIGITS = re.compile(r"\d+")


def holds_card_number(text: str) -> bool:
    """Whether the text has a group of digits, or neighbouring groups, that could be a card number (Luhn)."""
    return any(_is_card(_DIGITS.findall(run)) for run in _GROUPED_DIGITS.findall(text))


def _is_card(groups: list[str]) -> bool:
    for start in range(len(groups)):
        for digits in accumulate(groups[start:]):
            if len(digits) > LENGTH_MAX:
                break
            if len(digits) >= LENGTH_MIN and passes_luhn(digits):
                return True
    return False


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, its cross sum taken, all divisible by 10."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0
