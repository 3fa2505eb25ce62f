"""JSON bodies are read exactly, and what is no JSON is refused."""

import json
from decimal import Decimal

import pytest

from payments_ledger.platform.exact_json import parse_exact_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"9007199254740993.01", Decimal("9007199254740993.01")),
        (b"1e400", Decimal("1e400")),
        (b"0.1", Decimal("0.1")),
        (b"100", 100),
        (b"9" * 5000, Decimal("9" * 5000)),
        ('{"a": "é"}'.encode(), {"a": "é"}),
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
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_exact_json(body)
