"""The published contract is that of the code, and complete: who reads it alone can write a client."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from payments_ledger.api import create_app
from payments_ledger.process.settings import Settings

PUBLISHED = Path(__file__).parents[3] / "docs" / "openapi.json"
PUBLIC = {"/v1/auth/token", "/healthz", "/readyz", "/metrics"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body that may be sent or answered, with where it is."""
    for path, method, operation in operations(document):
        bodies = {"request": operation.get("requestBody", {})} | operation["responses"]
        for place, body in bodies.items():
            for media_type, content in body.get("content", {}).items():
                yield f"{method} {path} {place} {media_type}", content


def test_the_published_document_is_up_to_date(document: dict[str, Any]) -> None:
    """When this fails, look at the difference as a client would, then run scripts/api-export.sh."""
    assert json.loads(PUBLISHED.read_text()) == document


def test_every_operation_has_a_name_for_programs_and_one_for_people(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for path, method, operation in operations(document):
        place = f"{method} {path}"
        assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", operation["operationId"]), place
        # "Create a payment intent", not "Create Payment Intent".
        assert re.fullmatch(r"[A-Z][a-z]+( [a-z-]+)+", operation["summary"]), place
        assert operation["description"].rstrip("`").endswith((".", '"next"', "(RFC 8288).")), place
    by_path = {(method, path): operation for path, method, operation in operations(document)}
    create = by_path["post", "/v1/payment-intents"]
    assert (create["operationId"], create["summary"]) == ("createPaymentIntent", "Create a payment intent")


def test_every_operation_says_who_may_call_it(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert bool(operation.get("security")) is (path not in PUBLIC), f"{method} {path}"
        assert "422" in operation["responses"], f"{method} {path}"


def test_every_tag_server_and_parameter_is_described(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert document["servers"]
    assert all(server["description"] for server in document["servers"])
    for path, method, operation in operations(document):
        assert set(operation["tags"]) <= described, f"{method} {path}"
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{method} {path} {parameter['name']}"


def test_every_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    seen = 0
    for place, content in contents(document):
        assert "example" in content, place
        schema = {**content["schema"], "components": document["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(content["example"])
        seen += 1
    assert seen > 200


def test_every_response_has_its_headers(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        for status, response in operation["responses"].items():
            expected = {"X-Correlation-Id"}
            expected |= {"RateLimit", "RateLimit-Policy"} if path.startswith("/v1/") else set()
            expected |= {"Retry-After"} if status in ("429", "503") else set()
            expected |= {"Location"} if status == "201" else set()
            expected |= {"Link"} if status == "200" and "cursor" in names else set()
            expected |= {"Idempotent-Replayed"} if status[0] == "2" and "Idempotency-Key" in names else set()
            assert expected <= response["headers"].keys(), f"{method} {path} {status}"
            for name, header in response["headers"].items():
                assert header == {"$ref": f"#/components/headers/{name}"}
    for name, header in document["components"]["headers"].items():
        assert header["description"], name
        jsonschema_rs.Draft202012Validator(header["schema"]).validate(header["example"])
