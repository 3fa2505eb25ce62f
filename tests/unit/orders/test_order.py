"""Reading orders: what the orders service sends, ever sent or might send, and what can never be one."""

import json
from pathlib import Path
from typing import Any

import pytest

from payments_ledger.money import Money
from payments_ledger.orders.order import NotAnOrder, OrderCancelled, OrderConfirmed, read_order

GOLDEN = Path(__file__).parents[2] / "golden"
SNAKE = {"tenant_id": "t", "order_id": "o-1", "total_amount": 10, "currency": "BRL", "correlation_id": "c"}


def confirmed(**changes: Any) -> bytes:
    content = {name: value for name, value in (SNAKE | changes).items() if value is not ...}
    return json.dumps(content).encode()


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("order.*.json")), ids=lambda file: file.name)
def test_every_message_of_the_corpus_stays_readable(file: Path) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())[file.name]
    if file.name.startswith("order.cancelled"):
        cancelled = read_order(OrderCancelled, file.read_bytes())
        assert {"tenant_id": cancelled.tenant_id, "order_id": cancelled.order_id} == expected
        return
    order = read_order(OrderConfirmed, file.read_bytes())
    assert {
        "tenant_id": order.tenant_id,
        "order_id": order.order_id,
        "correlation_id": order.correlation_id,
        "money": str(order.money()),
    } == expected


def test_the_corpus_and_its_expectations_are_complete() -> None:
    assert {file.name for file in GOLDEN.glob("order.*.json")} == json.loads(
        (GOLDEN / "expected.json").read_text()
    ).keys()


@pytest.mark.parametrize(
    ("amount", "currency", "money"),
    [
        ("239.7", "BRL", Money(23970, "BRL")),
        ("239.70000000000002", "BRL", Money(23970, "BRL")),
        ("239.69999999999999", "BRL", Money(23970, "BRL")),
        ("1E+2", "BRL", Money(10000, "BRL")),
        ('"100.00"', "BRL", Money(10000, "BRL")),
        ("100.00", "JPY", Money(100, "JPY")),
        ("1.234", "KWD", Money(1234, "KWD")),
        ("9007199254740993.01", "BRL", Money(900719925474099301, "BRL")),
        ("0", "BRL", None),
        ("0.000000000000001", "BRL", None),
        ("-0.0", "BRL", None),
        ('"0.00"', "BRL", None),
        ('"100.00"', "JPY", Money(100, "JPY")),
        ('"1.000"', "BRL", Money(100, "BRL")),
    ],
)
def test_an_amount_is_read_from_its_digits(amount: str, currency: str, money: Money | None) -> None:
    body = f'{{"tenant_id": "t", "order_id": "o", "total_amount": {amount}, "currency": "{currency}"}}'
    assert read_order(OrderConfirmed, body.encode()).money() == money


@pytest.mark.parametrize(
    "amount",
    [
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "-1",
            "-0.01",
            "1e30",
            "1e999999",
            "10.555",
            '"NaN"',
            '"ten"',
            '""',
            "9" * 100,
        ),
        *("1e9223372036854775808", "1e-9223372036854775808", "1e999999999999999999"),
        *('"1_000"', '" 12 "', '"+5"', '"-5"', '"1e3"', '"١٢"', '"1,00"', '".5"', '"5."', '"0x1"'),
        # A text is no sum of floating-point prices.
        '"239.70000000000002"',
    ],
)
def test_an_amount_that_is_none_is_refused(amount: str) -> None:
    body = f'{{"tenant_id": "t", "order_id": "o", "total_amount": {amount}}}'
    with pytest.raises(NotAnOrder, match="total_amount"):
        read_order(OrderConfirmed, body.encode()).money()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b'{"order_id": "a", "order_id": "b"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (confirmed(order_id=...), "order_id"),
        (confirmed(tenant_id=...), "tenant_id"),
        (confirmed(total_amount=...), "total_amount"),
        (confirmed(order_id=7), "order_id"),
        (confirmed(order_id=""), "order_id"),
        (confirmed(order_id="o\n"), "order_id"),
        (confirmed(order_id="o" * 123), "order_id"),
        (confirmed(order_id="4111111111111111"), "order_id: must not hold what looks like a card number"),
        (confirmed(order_id="4111.1111/1111_1111"), "order_id: must not hold what looks like a card number"),
        (confirmed(order_id="o" * 123), "order_id: must be 1 to 122 printable ASCII characters"),
        (confirmed(tenant_id="*"), "tenant_id"),
        (confirmed(tenant_id=None), "tenant_id"),
        (confirmed(total_amount=None), "total_amount"),
        (confirmed(total_amount=True), "total_amount"),
        (confirmed(total_amount=[1]), "total_amount"),
        (confirmed(currency=7), "currency"),
    ],
)
def test_a_message_that_is_no_order_is_refused_with_the_field(body: bytes, reason: str) -> None:
    with pytest.raises(NotAnOrder, match=reason):
        read_order(OrderConfirmed, body)


@pytest.mark.parametrize("currency", ["XXX", "brl", "", "BR", "REAL"])
def test_a_currency_that_is_none_is_refused(currency: str) -> None:
    with pytest.raises(NotAnOrder, match="currency"):
        read_order(OrderConfirmed, confirmed(currency=currency)).money()


def test_without_a_currency_it_is_the_default() -> None:
    for currency in (..., None):
        assert read_order(OrderConfirmed, confirmed(currency=currency)).money() == Money(1000, "BRL")


def test_an_order_id_that_is_a_uuid_is_one_whatever_its_digits() -> None:
    order_id = "41111111-1111-1111-0000-000000000000"
    assert read_order(OrderCancelled, confirmed(order_id=order_id)).order_id == order_id
