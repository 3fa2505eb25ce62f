"""Description and metadata: what clients say of a payment, given back as it came, and what they may not say."""

import json
from typing import Any

import pytest

from payments_ledger.postgres.database import Database
from tests.integration.books import broken_checks
from tests.integration.conftest import Api
from tests.integration.http import PATH, assert_problem, create
from tests.integration.payments.lifecycle_requests import act, created, events_of, read, settled

pytestmark = pytest.mark.anyio

ODD = {"b": "", "a": 'ü ✓ "quoted" \\ {curly}', "A.b-c_9": "x" * 500, "z": "<img onerror=alert(1)>"}


async def change(api: Api, headers: dict[str, str], payment_id: str, body: Any) -> Any:
    return await api.client.patch(f"{PATH}/{payment_id}", json=body, headers=headers)


async def test_metadata_comes_back_as_it_was_in_its_order(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers, metadata=ODD, description="Two tickets")
    assert json.dumps(payment["metadata"]) == json.dumps(ODD)
    assert json.dumps((await read(api, headers, payment["id"]))["metadata"]) == json.dumps(ODD)


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"metadata": {}}, {"description": None}])
async def test_what_is_left_out_is_empty(api: Api, tenant: str, body: dict[str, Any]) -> None:
    payment = await created(api, api.headers(tenant), **body)
    assert (payment["metadata"], payment["description"]) == ({}, None)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {f"k{number}": "v" for number in range(21)}}, "#/metadata"),
    ({"metadata": {"": "v"}}, "#/metadata/"),
    ({"metadata": {"k" * 41: "v"}}, f"#/metadata/{'k' * 41}"),
    ({"metadata": {"a b": "v"}}, "#/metadata/a%20b"),
    ({"metadata": {"chave-ç": "v"}}, "#/metadata/chave-%C3%A7"),
    ({"metadata": {"k": 5}}, "#/metadata/k"),
    ({"metadata": {"k": True}}, "#/metadata/k"),
    ({"metadata": {"k": {"deep": "v"}}}, "#/metadata/k"),
    ({"metadata": {"k": ["v"]}}, "#/metadata/k"),
    ({"metadata": {"k": "v" * 501}}, "#/metadata/k"),
    ({"metadata": {"k": "nul \0"}}, "#/metadata/k"),
    ({"metadata": {"k": "4111 1111 1111 1111"}}, "#/metadata/k"),
    ({"metadata": {"4111111111111111": "v"}}, "#/metadata/4111111111111111"),
    ({"metadata": "k=v"}, "#/metadata"),
    ({"metadata": [["k", "v"]]}, "#/metadata"),
    ({"description": ""}, "#/description"),
    ({"description": "d" * 501}, "#/description"),
    ({"description": "card 4111111111111111"}, "#/description"),
    ({"description": "bell \a"}, "#/description"),
    ({"description": 7}, "#/description"),
]
each_bad = pytest.mark.parametrize(("body", "place"), BAD, ids=range(len(BAD)))


@each_bad
async def test_what_may_not_be_said_is_named_and_nothing_is_created(
    api: Api, database: Database, tenant: str, body: dict[str, Any], place: str
) -> None:
    assert_problem(await create(api, api.headers(tenant), **body), 422, place=place)
    async with database.transaction([tenant]) as conn:
        assert await (await conn.execute("SELECT FROM payment_intents")).fetchall() == []


@each_bad
async def test_what_may_not_be_said_later_is_named_and_nothing_changes(
    api: Api, tenant: str, body: dict[str, Any], place: str
) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers, metadata={"seat": "7"}, description="Two tickets")
    assert_problem(await change(api, headers, payment["id"], body), 422, place=place)
    assert await read(api, headers, payment["id"]) == payment


async def test_a_change_is_merged_in_any_status_and_is_audited_and_no_event(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    cancelled = await created(api, headers, metadata={"seat": "7", "row": "B"})
    await act(api, headers, cancelled["id"], "cancel")
    done = await settled(api, database, tenant, headers, metadata={"seat": "7", "row": "B"}, description="Two")
    for payment in (cancelled, done):
        before = await events_of(database, tenant, payment["id"])
        response = await change(
            api, headers, payment["id"], {"metadata": {"row": None, "gate": "4"}, "description": "Three"}
        )
        after = response.json()
        assert (response.status_code, after["metadata"], after["description"]) == (
            200,
            {"seat": "7", "gate": "4"},
            "Three",
        )
        assert after["updated_at"] > payment["updated_at"]
        assert await read(api, headers, payment["id"]) == after
        assert await events_of(database, tenant, payment["id"]) == before
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            "SELECT detail FROM audit_log WHERE target = %s AND action = 'payment.annotate'", [done["id"]]
        )
        [(detail,)] = await cursor.fetchall()
    assert detail["before"] == {"description": "Two", "metadata": {"seat": "7", "row": "B"}}
    assert detail["after"] == {"description": "Three", "metadata": {"seat": "7", "gate": "4"}}
    assert await broken_checks(database_url, tenant) == {}


@pytest.mark.parametrize(
    ("body", "description", "metadata"),
    [
        ({}, "Two", {"seat": "7"}),
        ({"description": None}, None, {"seat": "7"}),
        ({"metadata": None}, "Two", {"seat": "7"}),
        ({"metadata": {}}, "Two", {"seat": "7"}),
        ({"metadata": {"seat": None}}, "Two", {}),
        ({"metadata": {"none": None}}, "Two", {"seat": "7"}),
        ({"metadata": {"seat": ""}}, "Two", {"seat": ""}),
    ],
)
async def test_a_change_is_a_merge_patch(
    api: Api, tenant: str, body: dict[str, Any], description: str | None, metadata: dict[str, str]
) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers, metadata={"seat": "7"}, description="Two")
    after = (await change(api, headers, payment["id"], body)).json()
    assert (after["description"], after["metadata"]) == (description, metadata)


async def test_no_change_makes_more_pairs_than_there_may_be(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers, metadata={f"k{number}": "v" for number in range(20)})
    assert_problem(await change(api, headers, payment["id"], {"metadata": {"one-more": "v"}}), 422, place="#/metadata")
    swapped = await change(api, headers, payment["id"], {"metadata": {"one-more": "v", "k0": None}})
    assert (swapped.status_code, len(swapped.json()["metadata"])) == (200, 20)


@pytest.mark.parametrize("name", ["amount", "currency", "status", "customer_ref", "expires_at", "capture_method"])
async def test_terms_do_not_change(api: Api, tenant: str, name: str) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers)
    assert_problem(await change(api, headers, payment["id"], {name: payment[name]}), 422, place=f"#/{name}")


async def test_a_payment_that_is_not_there_is_not_changed(api: Api, tenant: str) -> None:
    path = "01a20568-8a1a-72a7-9083-66e400122dd8"
    assert_problem(await change(api, api.headers(tenant), path, {}), 404, "payment_not_found")
    assert_problem(await change(api, api.headers(tenant, role="sales"), path, {}), 403, "permission_denied")
