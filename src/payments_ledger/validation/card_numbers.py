"""Card numbers, so that none is kept by accident: one of them would put the whole ledger under PCI DSS."""

import re
from itertools import accumulate

# ISO/IEC 7812: 13 to 19 digits. People write them in groups, with something like a blank between.
LENGTH_MIN, LENGTH_MAX = 13, 19

# Digits beside a letter are part of a word, such as an identifier in hexadecimal.
_GROUP = r"(?<![^\W_])\d+(?![^\W_])"
_GROUPED_DIGITS = re.compile(rf"{_GROUP}(?:[\s./_,\u2010-\u2015-]+{_GROUP})*")
_DIGITS = re.compile(r"\d+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def holds_card_number(text: str) -> bool:
    """Whether the text has a group of digits, or neighbouring groups, that could be a card number (Luhn).

    Groups are delimited by what is neither letter nor digit; blanks, dashes and `. / _ ,` may stand between neighbours.
    A text that is a UUID as a whole holds none. Takes linear time.
    """
    if len(text) < LENGTH_MIN or _UUID.fullmatch(text):
        return False
    return any(_has_card(_DIGITS.findall(run)) for run in _GROUPED_DIGITS.findall(text))


def no_card_number(text: str) -> str:
    """The text, for a field's validation; raises ValueError if it holds what looks like a card number."""
    if holds_card_number(text):
        raise ValueError("must not hold what looks like a card number")
    return text


def _has_card(groups: list[str]) -> bool:
    digits = "".join(groups)
    if len(digits) < LENGTH_MIN:
        return False
    sums = _luhn_sums(digits)
    boundaries = [0, *accumulate(map(len, groups))]
    begin = 0
    for end in boundaries:
        while end - boundaries[begin] > LENGTH_MAX:
            begin += 1
        # The sum of a part is the difference of two sums from the beginning; few parts of this length end here.
        of_this_end, place = sums[end % 2], begin
        while end - (start := boundaries[place]) >= LENGTH_MIN:
            if (of_this_end[end] - of_this_end[start]) % 10 == 0:
                return True
            place += 1
    return False


def _luhn_sums(digits: str) -> tuple[list[int], list[int]]:
    """The sums of the first 0, 1, 2 … digits as Luhn counts them, for numbers that end at an even and an odd place.

    ISO/IEC 7812-1, annex B: every second digit from the right doubled, its cross sum taken, all divisible by 10.
    """
    plain = [int(digit) for digit in digits]
    doubled = [sum(divmod(2 * digit, 10)) for digit in plain]
    even = [own if place % 2 else twice for place, (own, twice) in enumerate(zip(plain, doubled, strict=True))]
    odd = [twice if place % 2 else own for place, (own, twice) in enumerate(zip(plain, doubled, strict=True))]
    return [0, *accumulate(even)], [0, *accumulate(odd)]
