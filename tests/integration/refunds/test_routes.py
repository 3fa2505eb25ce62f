"""Refunds over HTTP: in whole, in parts, never more than was settled; listed, shown, refused."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from payments_ledger.postgres.database import Database
from tests.integration.books import broken_checks
from tests.integration.conftest import Api
from tests.integration.http import PATH, assert_problem
from tests.integration.payments.lifecycle_requests import (
    act,
    authorized,
    created,
    events_of,
    post,
    read,
    settle,
    settled,
)

pytestmark = pytest.mark.anyio

REFUNDS = "/v1/refunds"


@pytest.fixture
def headers(api: Api, tenant: str) -> dict[str, str]:
    return api.headers(tenant, role="admin")


async def test_a_payment_is_refunded_in_parts_up_to_what_was_captured(
    api: Api, database: Database, database_url: str, tenant: str, headers: dict[str, str]
) -> None:
    payment = await authorized(api, headers, capture_method="manual")
    await act(api, headers, payment["id"], "capture", {"amount": "80.00"})
    await settle(database, tenant, payment["id"])
    first = await act(
        api,
        headers,
        payment["id"],
        "refunds",
        {"amount": 30, "reason": "Returned", "reference": "R-1", "metadata": {"a": "b"}},
    )
    assert first.status_code == 201
    refund = first.json()
    assert refund == {
        "id": refund["id"],
        "payment_intent_id": payment["id"],
        "amount": "30.00",
        "currency": "BRL",
        "status": "SUCCEEDED",
        "reason": "Returned",
        "reference": "R-1",
        "metadata": {"a": "b"},
        "created_at": refund["created_at"],
    }
    assert first.headers["Location"] == f"{REFUNDS}/{refund['id']}"
    rest = (await act(api, headers, payment["id"], "refunds")).json()
    assert (rest["amount"], rest["reason"], rest["reference"], rest["metadata"]) == ("50.00", None, None, {})
    assert_problem(await act(api, headers, payment["id"], "refunds"), 409, "amount_exceeds_refundable")

    after = await read(api, headers, payment["id"])
    assert (after["status"], after["amount_refunded"], after["amount_refundable"]) == ("SETTLED", "80.00", "0.00")
    told = [event for event in await events_of(database, tenant, payment["id"]) if event["type"] == "payment.refunded"]
    assert [
        (event["refund_id"], event["refund_amount"], event["amount_refunded"], event["reference"]) for event in told
    ] == [
        (refund["id"], "30.00", "30.00", "R-1"),
        (rest["id"], "50.00", "80.00", None),
    ]
    assert {event["amount"] for event in told} == {"100.00"}
    entries = (await api.client.get("/v1/ledger/entries", headers=headers)).json()
    assert {entry["payment_intent_id"] for entry in entries} == {payment["id"]}
    assert [entry["lines"][0]["account"] for entry in entries] == ["REVENUE", "REVENUE", "CASH"]
    balances = (await api.client.get("/v1/ledger/balances", headers=headers)).json()
    assert {balance["balance"] for balance in balances} == {"0.00"}
    assert await broken_checks(database_url, tenant) == {}


async def test_two_hundred_refunds_at_once_never_exceed_the_payment(
    api: Api, database: Database, database_url: str, tenant: str, headers: dict[str, str]
) -> None:
    payment = await settled(api, database, tenant, headers)
    responses = await asyncio.gather(
        *(act(api, headers, payment["id"], "refunds", {"amount": "1.50"}) for _ in range(200))
    )
    assert sorted(response.status_code for response in responses) == [201] * 66 + [409] * 134
    after = await read(api, headers, payment["id"])
    assert (after["amount_refunded"], after["amount_refundable"]) == ("99.00", "1.00")
    assert len(await events_of(database, tenant, payment["id"])) == 3 + 66
    assert await broken_checks(database_url, tenant) == {}


async def test_only_what_is_settled_is_refunded(api: Api, tenant: str, headers: dict[str, str]) -> None:
    cancelled = await created(api, headers)
    await act(api, headers, cancelled["id"], "cancel")
    for payment in (await created(api, headers), await authorized(api, headers), cancelled):
        assert_problem(await act(api, headers, payment["id"], "refunds"), 409, "not_refundable")
    assert_problem(await act(api, headers, str(uuid4()), "refunds"), 404, "payment_not_found")


async def test_a_reference_is_used_once_in_a_tenant(
    api: Api, database: Database, tenant: str, headers: dict[str, str]
) -> None:
    one, two = [await settled(api, database, tenant, headers) for _ in range(2)]
    first = await act(api, headers, one["id"], "refunds", {"amount": 1, "reference": "R-1"}, key="k")
    assert first.status_code == 201
    for payment in (one, two):
        refused = await act(api, headers, payment["id"], "refunds", {"amount": 1, "reference": "R-1"})
        assert_problem(refused, 409, "reference_taken")
    again = await act(api, headers, one["id"], "refunds", {"amount": "1.0", "reference": "R-1"}, key="k")
    assert (again.status_code, again.content, again.headers["Location"]) == (
        201,
        first.content,
        first.headers["Location"],
    )
    at_once = await asyncio.gather(
        *(act(api, headers, p["id"], "refunds", {"amount": 1, "reference": "R-2"}) for p in (one, two) * 5)
    )
    assert sorted(response.status_code for response in at_once) == [201] + [409] * 9
    assert (await read(api, headers, one["id"]))["amount_refunded"] in ("1.00", "2.00")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"amount": 0}, "#/amount"),
        ({"amount": "-1.00"}, "#/amount"),
        ({"amount": "0.001"}, "#/amount"),
        ({"amount": True}, "#/amount"),
        ({"reason": ""}, "#/reason"),
        ({"reason": "r" * 201}, "#/reason"),
        ({"reference": ""}, "#/reference"),
        ({"reference": "r" * 129}, "#/reference"),
        ({"reference": "4111111111111111"}, "#/reference"),
        ({"reference": 7}, "#/reference"),
        ({"metadata": {"k": 5}}, "#/metadata/k"),
        ({"currency": "BRL"}, "#/currency"),
        ([], "#"),
    ],
)
async def test_what_is_wrong_with_a_refund_is_named_and_nothing_is_given_back(
    api: Api, database: Database, tenant: str, headers: dict[str, str], body: Any, place: str
) -> None:
    payment = await settled(api, database, tenant, headers)
    assert_problem(await act(api, headers, payment["id"], "refunds", body), 422, place=place)
    assert await read(api, headers, payment["id"]) == payment


async def test_who_may_not_refund_is_refused(api: Api, database: Database, tenant: str) -> None:
    ops = api.headers(tenant)
    payment = await settled(api, database, tenant, ops)
    for role in ("ops", "sales"):
        response = await act(api, api.headers(tenant, role=role), payment["id"], "refunds")
        assert_problem(response, 403, "permission_denied")
    path = f"{PATH}/{payment['id']}/refunds"
    without_key = await api.client.post(path, headers=api.headers(tenant, role="admin"))
    assert_problem(without_key, 400, "missing_header", "Idempotency-Key")


async def test_refunds_are_listed_newest_first_in_pages_and_by_what_is_asked_for(
    api: Api, database: Database, tenant: str, headers: dict[str, str]
) -> None:
    one, two = [await settled(api, database, tenant, headers) for _ in range(2)]
    made = []
    for number, payment in enumerate([one, two, one, one, two]):
        body = {"amount": number + 1, "reference": f"R-{number}"}
        made.append((await act(api, headers, payment["id"], "refunds", body)).json())
    newest_first = made[::-1]

    async def listed(path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        following: str | None = path
        while following:
            response = await api.client.get(following, headers=headers)
            assert response.status_code == 200, response.text
            found += response.json()
            following = response.links.get("next", {}).get("url")
        return found

    page = await api.client.get(f"{REFUNDS}?limit=1&payment_intent_id={one['id']}", headers=headers)
    cursor = page.links["next"]["url"].partition("cursor=")[2]
    for other in (REFUNDS, f"{REFUNDS}?reference=R-3", f"{PATH}/{one['id']}/refunds", f"{PATH}/{two['id']}/refunds"):
        following = f"{other}{'&' if '?' in other else '?'}cursor={cursor}"
        assert_problem(await api.client.get(following, headers=headers), 400, "invalid_cursor")
    assert await listed(f"{REFUNDS}?limit=2") == newest_first
    of_one = [refund for refund in newest_first if refund["payment_intent_id"] == one["id"]]
    assert await listed(f"{REFUNDS}?payment_intent_id={one['id']}&limit=1") == of_one
    assert await listed(f"{PATH}/{one['id']}/refunds?limit=2") == of_one
    assert await listed(f"{REFUNDS}?reference=R-3") == [made[3]]
    assert await listed(f"{REFUNDS}?reference=none") == []
    assert await listed(f"{REFUNDS}?from={made[1]['created_at']}&to={made[3]['created_at']}") == [made[2], made[1]]
    assert (await api.client.get(f"{REFUNDS}/{made[0]['id']}", headers=headers)).json() == made[0]
    assert sum(Decimal(refund["amount"]) for refund in of_one) == Decimal(
        (await read(api, headers, one["id"]))["amount_refunded"]
    )


async def test_what_is_not_there_or_of_another_tenant_is_not_found(
    api: Api, database: Database, tenant: str, headers: dict[str, str], new_tenant: Any
) -> None:
    payment = await settled(api, database, tenant, headers)
    refund = (await act(api, headers, payment["id"], "refunds")).json()
    stranger = api.headers(await new_tenant(), role="admin")
    assert_problem(await api.client.get(f"{REFUNDS}/{refund['id']}", headers=stranger), 404, "refund_not_found")
    assert_problem(await api.client.get(f"{PATH}/{payment['id']}/refunds", headers=stranger), 404, "payment_not_found")
    assert_problem(await post(api, stranger, f"{PATH}/{payment['id']}/refunds"), 404, "payment_not_found")
    assert (await api.client.get(REFUNDS, headers=stranger)).json() == []
    assert_problem(await api.client.get(f"{REFUNDS}/nonsense", headers=headers), 422, place="refund_id")
