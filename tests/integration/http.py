"""The request that most tests send, and what a problem response always looks like (RFC 9457)."""

from typing import Any

import httpx

from tests.integration.conftest import Api

PATH = "/v1/payment-intents"
BODY = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-1"}


async def create(api: Api, headers: dict[str, str], **changes: Any) -> httpx.Response:
    return await api.client.post(PATH, json={**BODY, **changes}, headers=headers)


def assert_problem(response: httpx.Response, status: int, code: str | None = None, place: str | None = None) -> None:
    """`place` is where one of the faults lies: a pointer (#…), or the name of a parameter or header."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) >= {"type", "title", "status", "detail", "instance", "code", "correlation_id"}
    assert problem["status"] == status
    assert problem["correlation_id"] == response.headers["X-Correlation-Id"]
    if code:
        assert problem["code"] == code
    if place:
        kind = "pointer" if place.startswith("#") else "parameter"
        assert place in [error.get(kind) for error in problem["errors"]]
