"""docs/asyncapi.yaml says what the code does, and its examples are messages that the code reads."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from payments_ledger.orders.order import OrderConfirmed, OrderMessage, read_order
from payments_ledger.reference.asyncapi import SENT, UNDERSTOOD, document

COMMITTED = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"
MESSAGES = SENT | {key: message for messages in UNDERSTOOD.values() for key, message in messages.items()}


def test_the_committed_document_is_up_to_date() -> None:
    assert COMMITTED.read_text() == document(), "payments-ledger asyncapi > docs/asyncapi.yaml"


def test_it_is_yaml_with_every_message_and_no_dangling_reference() -> None:
    content = yaml.safe_load(document())
    assert content["asyncapi"] == "3.0.0"
    assert {message["name"] for message in content["components"]["messages"].values()} == MESSAGES.keys()
    for reference in references(content):
        node = content
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.parametrize("key", MESSAGES)
def test_each_example_can_be_read(key: str) -> None:
    body, example = MESSAGES[key]
    if issubclass(body, OrderMessage):
        order = read_order(body, json.dumps(example).encode())
        if isinstance(order, OrderConfirmed):
            assert str(order.money()) == "239.70 BRL"
    else:
        body.model_validate(example)


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for member in node.values() for found in references(member)]
    if isinstance(node, list):
        return [found for member in node for found in references(member)]
    return []
