"""Many payment intents in one request: each has an outcome of its own, and all have one idempotency key."""

from typing import Any

import httpx
import pytest

from payments_ledger.payments.routes import BATCH_BYTES_MAX, PATH
from tests.integration.administration import rows_of
from tests.integration.conftest import Api

pytestmark = pytest.mark.anyio

GOOD = {"amount": "10.50", "currency": "BRL", "customer_ref": "C-1"}


async def post(api: Api, headers: dict[str, str], *payment_intents: Any, key: str = "k") -> httpx.Response:
    body = {"payment_intents": list(payment_intents)}
    return await api.client.post(f"{PATH}/batch", json=body, headers=headers | {"Idempotency-Key": key})


async def test_a_thousand_payments_are_created_in_the_order_of_the_request(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    answer = await post(api, headers, *({**GOOD, "customer_ref": f"C-{number}"} for number in range(1000)))
    assert answer.status_code == 200, answer.text
    outcomes = answer.json()["outcomes"]
    assert {outcome["status"] for outcome in outcomes} == {201}
    assert [outcome["payment_intent"]["customer_ref"] for outcome in outcomes] == [f"C-{n}" for n in range(1000)]
    last = outcomes[-1]["payment_intent"]
    assert (await api.client.get(f"{PATH}/{last['id']}", headers=headers)).json() == last


async def test_what_is_wrong_with_one_payment_is_said_of_it_alone(api: Api, tenant: str) -> None:
    answer = await post(
        api,
        api.headers(tenant),
        GOOD,
        {**GOOD, "amount": "10.505"},
        {**GOOD, "currency": "XXX"},
        {**GOOD, "customer_ref": ""},
        {**GOOD, "tip": "1.00"},
        "no object",
        GOOD,
    )
    assert answer.status_code == 200
    outcomes = answer.json()["outcomes"]
    assert [outcome["status"] for outcome in outcomes] == [201, 422, 422, 422, 422, 422, 201]
    assert [outcome["problem"]["errors"][0]["pointer"] for outcome in outcomes[1:6]] == [
        "#/payment_intents/1/amount",
        "#/payment_intents/2/currency",
        "#/payment_intents/3/customer_ref",
        "#/payment_intents/4/tip",
        "#/payment_intents/5",
    ]


async def test_a_repetition_gets_the_first_answer_and_creates_nothing(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    first = await post(api, headers, GOOD, {**GOOD, "amount": 0})
    again = await post(api, headers, {**GOOD, "amount": 10.50}, {**GOOD, "amount": 0})
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await post(api, headers, GOOD, GOOD)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_another_request_under_the_key_is_refused_also_when_both_are_wrong_in_the_same_way(
    api: Api, tenant: str
) -> None:
    headers = api.headers(tenant)
    await post(api, headers, GOOD, {**GOOD, "amount": "10.505"})
    other = await post(api, headers, GOOD, {**GOOD, "amount": "99.995"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_policy_speaks_of_each_payment_and_changes_no_answer_that_was_given(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    large = {**GOOD, "amount": "200.00"}
    first = await post(api, headers, GOOD, large)
    policy = {
        "effect": "deny",
        "actions": ["payments:write"],
        "roles": ["ops"],
        "amount": {"currency": "BRL", "minimum": "100.01"},
    }
    admin = api.headers(tenant, role="admin")
    (await api.client.put("/v1/admin/policies/up-to-100", json=policy, headers=admin)).raise_for_status()
    now = await post(api, headers, GOOD, large, large, key="another")
    assert [outcome["status"] for outcome in now.json()["outcomes"]] == [201, 403, 403]
    # One row for the request, as for any other that is refused.
    [refusal] = await rows_of(api, admin, now.headers["X-Correlation-Id"], action="refuse.policy_denied")
    assert refusal["target"] == f"POST {PATH}/batch"
    assert (await post(api, headers, GOOD, large)).content == first.content


@pytest.mark.parametrize("payment_intents", [[], [GOOD] * 1001], ids=["none", "1001"])
async def test_a_batch_has_one_to_a_thousand_payments(api: Api, tenant: str, payment_intents: list[Any]) -> None:
    answer = await post(api, api.headers(tenant), *payment_intents)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/payment_intents"


async def test_a_batch_needs_its_key_and_has_a_size(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    without = await api.client.post(f"{PATH}/batch", json={"payment_intents": [GOOD]}, headers=headers)
    assert (without.status_code, without.json()["code"]) == (400, "missing_header")
    huge = await post(api, headers, {**GOOD, "customer_ref": "x" * BATCH_BYTES_MAX})
    assert huge.status_code == 413
