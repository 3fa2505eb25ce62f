"""JSON read exactly: numbers become Decimal from their text, and what is no JSON (RFC 8259) is refused."""

import json
from decimal import Decimal
from typing import Any

# Longer integers are no amount and no limit of ours; int() would take quadratic time over them.
_INTEGER_DIGITS_MAX = 40
# Deeper than any body of ours, and shallow enough for whatever looks at the value afterwards.
DEPTH_MAX = 16

_TOO_DEEP = "The body is nested too deeply"


def parse_exact_json(body: bytes) -> Any:
    """The value of a JSON text; raises json.JSONDecodeError, also for duplicate names and bottomless nesting.

    NaN and Infinity are no JSON, but they are read, so that whoever checks the field can refuse it by its name.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from None
    try:
        value = _DECODER.decode(text)
        _refuse_depth(value)
        return value
    except RecursionError:
        raise json.JSONDecodeError(_TOO_DEEP, "", 0) from None


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for container in level
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise json.JSONDecodeError(_TOO_DEEP, "", 0)


def _parse_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else Decimal(digits)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise json.JSONDecodeError("A name occurs twice in an object", "", 0)
    return members


_DECODER = json.JSONDecoder(
    parse_float=Decimal,
    parse_int=_parse_integer,
    parse_constant=Decimal,
    object_pairs_hook=_refuse_duplicates,
)
