"""Policies with an amount: what they bind is the amount that a request moves, said or not."""

from typing import Any

import pytest

from payments_ledger.postgres.database import Database
from tests.integration.conftest import Api
from tests.integration.http import assert_problem
from tests.integration.payments.lifecycle_requests import act, authorized, read, settled

pytestmark = pytest.mark.anyio

UP_TO_50 = {"effect": "deny", "roles": ["finance", "ops"], "amount": {"currency": "BRL", "minimum": "50.01"}}


async def forbid(api: Api, tenant: str, *actions: str, **changes: Any) -> Any:
    policy = {**UP_TO_50, "actions": list(actions), **changes}
    path = "/v1/admin/policies/up-to-50"
    return await api.client.put(path, json=policy, headers=api.headers(tenant, role="admin"))


async def test_a_capture_is_judged_by_what_is_captured(api: Api, tenant: str) -> None:
    ops = api.headers(tenant)
    payment = await authorized(api, ops, capture_method="manual")
    (await forbid(api, tenant, "payments:write")).raise_for_status()
    for body in (None, {"amount": "50.01"}, {"amount": 100}):
        assert_problem(await act(api, ops, payment["id"], "capture", body), 403, "policy_denied")
    assert await read(api, ops, payment["id"]) == payment
    captured = await act(api, ops, payment["id"], "capture", {"amount": 50})
    assert (captured.status_code, captured.json()["amount_captured"]) == (200, "50.00")


async def test_a_refund_is_judged_by_what_is_given_back_or_left(api: Api, database: Database, tenant: str) -> None:
    finance = api.headers(tenant, role="finance")
    payment = await settled(api, database, tenant, api.headers(tenant))
    (await forbid(api, tenant, "payments:refund")).raise_for_status()
    for body in (None, {"amount": "50.01"}):
        assert_problem(await act(api, finance, payment["id"], "refunds", body), 403, "policy_denied")
    assert (await act(api, finance, payment["id"], "refunds", {"amount": 50})).status_code == 201
    # What is left by now is no more than the policy allows.
    assert (await act(api, finance, payment["id"], "refunds")).json()["amount"] == "50.00"


@pytest.mark.parametrize(
    ("actions", "status"),
    [
        (["payments:write"], 200),
        (["payments:refund"], 200),
        (["ledger:write"], 200),
        (["payments:write", "payments:refund", "ledger:write"], 200),
        ([], 422),
        (["payments:read"], 422),
        (["payments:write", "ledger:read"], 422),
    ],
)
async def test_an_amount_is_a_condition_of_what_moves_money_alone(
    api: Api, tenant: str, actions: list[str], status: int
) -> None:
    response = await forbid(api, tenant, *actions)
    assert response.status_code == status
    if status == 422:
        assert_problem(response, 422, place="#/amount")
    else:
        assert sorted(response.json()["actions"]) == sorted(actions)


async def test_finance_refunds_and_reads_and_creates_no_payment(api: Api, database: Database, tenant: str) -> None:
    finance, ops = api.headers(tenant, role="finance"), api.headers(tenant)
    payment = await settled(api, database, tenant, ops)
    assert (await act(api, finance, payment["id"], "refunds", {"amount": 1})).status_code == 201
    assert (await read(api, finance, payment["id"]))["amount_refunded"] == "1.00"
    assert (await api.client.get("/v1/ledger/balances", headers=finance)).status_code == 200
    for action in ("confirm", "capture", "cancel"):
        assert_problem(await act(api, finance, payment["id"], action), 403, "permission_denied")
