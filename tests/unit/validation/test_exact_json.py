"""JSON bodies are read exactly, and what is no JSON is refused."""

import json
from decimal import Decimal

import pytest

from payments_ledger.validation.exact_json import DEPTH_MAX, NAMES_MAX, VALUES_MAX, parse_exact_json


def nested(depth: int) -> list[object]:
    return [nested(depth - 1)] if depth > 1 else []


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"9007199254740993.01", Decimal("9007199254740993.01")),
        (b"1e400", Decimal("1e400")),
        (b"0.1", Decimal("0.1")),
        (b"100", 100),
        (b"9" * 5000, Decimal("9" * 5000)),
        ('{"a": "é"}'.encode(), {"a": "é"}),
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, nested(DEPTH_MAX)),
        (rb'{"a": "[{\"[[[[[[[[[[[[[[[[[[[\\"}', {"a": '[{"[[[[[[[[[[[[[[[[[[[\\'}),
        (b"[" + b"1," * (VALUES_MAX - 1) + b"1]", [1] * VALUES_MAX),
    ],
)
def test_numbers_keep_their_exact_value(body: bytes, value: object) -> None:
    assert parse_exact_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"'a'",
        b"01",
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1),
        b"[" + b"1," * VALUES_MAX + b"1]",
        b"{" + b",".join(b'"%d": 1' % number for number in range(NAMES_MAX + 1)) + b"}",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_exact_json(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Syntax error at character 1"),
        (b"{", "Syntax error at character 2"),
        (b'{"a"', "Syntax error at character 5"),
        (b'{"a": "', "Syntax error at character 7"),
        (b'{"a": "\\x"}', "Syntax error at character 8"),
        (b"{} {}", "Syntax error at character 4"),
        (b'{"a": 1, "a": 2}', "A name occurs twice in an object"),
        (b"\xff", "The body is not UTF-8"),
    ],
)
def test_a_refusal_is_in_words_of_ours(body: bytes, message: str) -> None:
    with pytest.raises(json.JSONDecodeError) as refused:
        parse_exact_json(body)
    assert refused.value.msg == message


@pytest.mark.parametrize(
    "number", ["1e9223372036854775808", "-1E-9223372036854775808", "0e99999999999999999999", "1e1000000000000000000"]
)
def test_a_number_beyond_every_decimal_is_read_as_none(number: str) -> None:
    value = parse_exact_json(f'{{"a": {number}}}'.encode())["a"]
    assert isinstance(value, Decimal)
    assert value.is_nan()
