"""JSON read exactly: numbers become Decimal from their text, and what is no JSON (RFC 8259) is refused."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

# Longer integers are no amount and no limit of ours; int() would take quadratic time over them.
_INTEGER_DIGITS_MAX = 40
# Deeper than any body of ours, and shallow enough for whatever looks at the value afterwards.
DEPTH_MAX = 16
# Nobody else is served while a text is read, so what it holds is bounded beside its length: these take some 10 ms.
# A bulk request has some 4,000 values, an order's message of the greatest length some 26,000.
VALUES_MAX = 30_000
# More than any object of ours and any order's has; each name that is not known is a fault to be written down.
NAMES_MAX = 1000

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class _ObjectRefused(json.JSONDecodeError):
    """Raised while an object is built, in words of ours."""


def parse_exact_json(body: bytes) -> Any:
    """The value of a JSON text; raises json.JSONDecodeError, also for duplicate names and what is beyond the bounds.

    NaN and Infinity are no JSON, but they are read, so that whoever checks the field can refuse it by its name.
    For the same reason a number whose exponent Decimal cannot hold (of more than 18 digits) is read as NaN.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from None
    outside = _outside_texts(body)
    if outside.count(b",") + outside.count(b"[") + outside.count(b"{") > VALUES_MAX:
        raise json.JSONDecodeError("The body holds too many values", "", 0)
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except _ObjectRefused:
        raise
    except json.JSONDecodeError as error:
        # The decoder's own words are those of a library.
        raise json.JSONDecodeError(f"Syntax error at character {error.pos + 1}", text, error.pos) from None
    if _is_deeper(outside, DEPTH_MAX):
        raise _too_deep()
    return value


def _outside_texts(body: bytes) -> bytes:
    """The JSON text without the content of its strings."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Empty strings first: a million quotation marks would be as many parts.
    return b"".join(unescaped.replace(b'""', b"").split(b'"')[::2])


def _is_deeper(structure: bytes, depth: int) -> bool:
    """Whether arrays and objects are nested deeper: each round takes the innermost ones away."""
    brackets = structure.translate(_BRACKETS, _ALL_BUT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _too_deep() -> json.JSONDecodeError:
    return json.JSONDecodeError("The body is nested too deeply", "", 0)


def _parse_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else Decimal(digits)


def _parse_real(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("NaN")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > NAMES_MAX:
        raise _ObjectRefused("An object has too many names", "", 0)
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _ObjectRefused("A name occurs twice in an object", "", 0)
    return members


_DECODER = json.JSONDecoder(
    parse_float=_parse_real,
    parse_int=_parse_integer,
    parse_constant=Decimal,
    object_pairs_hook=_build_object,
)
