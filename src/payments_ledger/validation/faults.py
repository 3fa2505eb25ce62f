"""What pydantic finds wrong with a value, in words of ours: they name no library, no pattern, and repeat no value."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from payments_ledger.errors import Fault, InvalidRequest

# A problem repeats names that clients made up, so it repeats no more of them than a person can read.
NAME_LENGTH_MAX = 64
FAULTS_MAX = 20
# Of a member or parameter that we have no use for: it may be a slip for one that matters.
UNKNOWN = "is not known here"

type _Context = Mapping[str, Any]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _at_least(number: int, noun: str) -> str:
    return "must not be empty" if number == 1 else f"must have at least {_counted(number, noun)}"


# By pydantic's name of the fault and what it tells of it.
_WORDS: Mapping[str, Callable[[_Context], str]] = {
    # Raised by a check of ours.
    "value_error": lambda context: str(context["error"]),
    "json_invalid": lambda _: "is not JSON",
    "missing": lambda _: "is required",
    "extra_forbidden": lambda _: UNKNOWN,
    "string_type": lambda _: "must be a text",
    "string_unicode": lambda _: "must not hold lone surrogates",
    "string_too_short": lambda context: _at_least(context["min_length"], "character"),
    "string_too_long": lambda context: f"must have at most {_counted(context['max_length'], 'character')}",
    "too_short": lambda context: _at_least(context["min_length"], "element"),
    "too_long": lambda context: f"must have at most {_counted(context['max_length'], 'element')}",
    "list_type": lambda _: "must be an array",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "model_attributes_type": lambda _: "must be an object",
    "bool_type": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "must be a smaller number",
    "greater_than_equal": lambda context: f"must be at least {context['ge']:,}",
    "less_than_equal": lambda context: f"must be at most {context['le']:,}",
    "enum": lambda context: f"must be {context['expected']}",
    "literal_error": lambda context: f"must be {context['expected']}",
}


def describe(found: ErrorDetails) -> str:
    """The fault that pydantic found, as what stands after the field's name ("is required")."""
    words = _WORDS.get(found["type"])
    return words(found.get("ctx", {})) if words else "is not valid"


def invalid_body(error: ValidationError) -> InvalidRequest:
    """What is wrong with a body, field by field: up to FAULTS_MAX faults."""
    found = islice(error.errors(include_url=False, include_input=False), FAULTS_MAX)
    return InvalidRequest([Fault(describe(fault), _path(fault["loc"])) for fault in found])


def _path(location: Sequence[str | int]) -> tuple[str | int, ...]:
    # pydantic marks a fault of a key with a step that is no member of the body.
    steps = location[:-1] if location[-1:] == ("[key]",) else location
    return tuple(name[:NAME_LENGTH_MAX] if isinstance(name, str) else name for name in steps)
