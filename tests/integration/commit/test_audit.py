"""Every change and every refusal is a row: who, from where, what, before and after, under which correlation id."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from starlette.requests import Request

from payments_ledger.access import refusals
from payments_ledger.access.refusals import Refusals
from payments_ledger.access.tokens import Identity
from payments_ledger.errors import DatabaseUnavailable, Unauthenticated
from payments_ledger.postgres.database import Database
from tests.integration.administration import DENY_ALL, audit, put, rows_of, subject_of
from tests.integration.books import settle_a_payment
from tests.integration.conftest import Api
from tests.integration.http import PATH, assert_problem, create

pytestmark = pytest.mark.anyio


async def test_a_payments_moves_tell_before_and_after(api: Api, tenant: str, database: Database) -> None:
    payment = await settle_a_payment(database, tenant)
    rows = await audit(api, api.headers(tenant, role="admin"), target=str(payment.id))
    assert [(row["action"], row["detail"]["before"], row["detail"]["after"]["status"]) for row in rows] == [
        ("payment.settle", {"status": "AUTHORIZED"}, "SETTLED"),
        ("payment.authorize", {"status": "CREATED"}, "AUTHORIZED"),
        ("payment.create", None, "CREATED"),
    ]


async def test_refusals_are_written_where_they_belong(api: Api, tenant: str, new_tenant: Any) -> None:
    admin, ops, root = api.headers(tenant, role="admin"), api.headers(tenant), api.headers("*", role="admin")
    await put(api, admin, "no-reading", DENY_ALL | {"actions": ["ledger:read"], "roles": ["ops"]})
    other, email, balances = await new_tenant(), f"{uuid4()}@x", "/v1/ledger/balances"
    known = {"email": email, "password": "not-told", "tenantId": tenant}
    cases: list[tuple[str, str, dict[str, str], Any, dict[str, str], str, str]] = [
        # method, path, headers, body, whose log, action, principal
        ("GET", balances, {}, None, root, "refuse.unauthenticated", "anonymous"),
        ("GET", balances, {"Authorization": "Bearer x"}, None, root, "refuse.unauthenticated", "anonymous"),
        ("GET", "/v1/me", {}, None, root, "refuse.unauthenticated", "anonymous"),
        ("GET", "/v1/admin/users", ops, None, admin, "refuse.permission_denied", subject_of(ops)),
        ("GET", balances, ops, None, admin, "refuse.policy_denied", subject_of(ops)),
        ("GET", balances, ops | {"X-Tenant-Id": other}, None, admin, "refuse.wrong_tenant", subject_of(ops)),
        ("POST", "/v1/auth/token", {}, known, admin, "refuse.bad_credentials", "anonymous"),
        ("POST", "/v1/auth/token", {}, known | {"tenantId": "no-such"}, root, "refuse.bad_credentials", "anonymous"),
        (
            "POST",
            "/v1/auth/token",
            {},
            {"email": email, "password": "not-told"},
            root,
            "refuse.bad_credentials",
            "anonymous",
        ),
    ]
    for number, (method, path, headers, body, log, action, principal) in enumerate(cases):
        correlation_id = f"{tenant[-12:]}-{number}"
        trace = {"X-Correlation-Id": correlation_id}
        response = await api.client.request(method, path, json=body, headers=headers | trace)
        assert response.status_code in (401, 403), response.text
        [row] = await rows_of(api, log, correlation_id)
        assert (row["action"], row["principal"], row["address"]) == (action, principal, "127.0.0.1")
        assert row["target"] == f"{method} {path}"
        assert row["detail"]["status"] == response.status_code
        assert row["detail"].get("email") == (email if body else None)
        assert "not-told" not in str(row)


async def test_a_path_that_no_text_column_holds_is_written_all_the_same(api: Api, tenant: str) -> None:
    root = api.headers("*", role="admin")
    correlation_id = f"{uuid4()}"
    path = f"/v1/admin/policies/%00%ff{'x' * 500}"
    await api.client.get(path.replace("policies/", "users/"), headers={"X-Correlation-Id": correlation_id})
    response = await api.client.put(path, json={}, headers={"X-Correlation-Id": correlation_id})
    assert_problem(response, 401)
    [row] = await rows_of(api, root, correlation_id)
    assert row["target"].startswith("PUT /v1/admin/policies/")
    assert len(row["target"]) < 300


async def test_pages_lead_through_everything_once_newest_first(api: Api, tenant: str) -> None:
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    ids = [(await create(api, ops)).json()["id"] for _ in range(7)]
    url, seen = "/v1/admin/audit?limit=3&action=payment.create", []
    pages = 0
    while url:
        response = await api.client.get(url, headers=admin)
        seen += [row["target"] for row in response.json()]
        url = response.links.get("next", {}).get("url", "")
        pages += 1
    assert (seen, pages) == (ids[::-1], 3)


async def test_filters_choose(api: Api, tenant: str) -> None:
    admin, one, two = api.headers(tenant, role="admin"), api.headers(tenant), api.headers(tenant)
    first = (await create(api, one)).json()["id"]
    await asyncio.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    await asyncio.sleep(0.01)
    second = (await create(api, two)).json()["id"]
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    for parameters, targets in (
        ({}, [second, first]),
        ({"principal": subject_of(one)}, [first]),
        ({"target": second}, [second]),
        ({"action": "payment.create"}, [second, first]),
        ({"action": "payment.settle"}, []),
        ({"from": between}, [second]),
        ({"to": between}, [first]),
        ({"from": later}, []),
        ({"target": second, "principal": subject_of(one)}, []),
    ):
        assert [row["target"] for row in await audit(api, admin, **parameters)] == targets, parameters


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("from=0", 422, "invalid_request"),
        ("from=2026-02-01&to=2026-01-01", 422, "invalid_parameter"),
        ("limit=0", 422, "invalid_request"),
        ("limit=201", 422, "invalid_request"),
        ("cursor=AAAA", 400, "invalid_cursor"),
        ("principal=", 422, "invalid_request"),
        ("target=%00", 422, "invalid_request"),
        (f"action={'x' * 300}", 422, "invalid_request"),
    ],
)
async def test_bad_filters_are_refused(api: Api, tenant: str, query: str, status: int, code: str) -> None:
    response = await api.client.get(f"/v1/admin/audit?{query}", headers=api.headers(tenant, role="admin"))
    assert_problem(response, status, code)


async def test_no_other_tenants_rows_are_shown(api: Api, tenant: str, new_tenant: Callable[[], Awaitable[str]]) -> None:
    other = await new_tenant()
    await create(api, api.headers(other))
    assert await audit(api, api.headers(tenant, role="admin")) == []


def dropped() -> float:
    return REGISTRY.get_sample_value("ledger_refusals_dropped_total") or 0.0


def refused_request() -> Request:
    return Request(
        {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "server": ("x", 80)}
    )


async def test_a_flood_of_refusals_is_bounded_and_the_rest_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "QUEUE_SIZE_MAX", 50)
    queue, before = Refusals(database.transaction), dropped()
    for _ in range(1000):
        queue.note(refused_request(), Unauthenticated())
    assert dropped() - before == 950
    await queue.drain()
    assert not queue._queue


async def test_refusals_wait_for_a_database_that_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "GROUP_SECONDS", 0.01)
    is_away = True

    def transaction(tenants: Any) -> Any:
        if is_away:
            raise DatabaseUnavailable
        return database.transaction(tenants)

    queue = Refusals(transaction)
    queue.note(refused_request(), Unauthenticated())
    await asyncio.sleep(0.05)
    assert len(queue._queue) == 1
    is_away = False
    await queue.drain()
    assert not queue._queue


async def test_a_refusal_that_cannot_be_written_is_lost_alone(api: Api, tenant: str, database: Database) -> None:
    queue, before, lost = Refusals(database.transaction), dropped(), {0, 77, 199}
    for number in range(200):
        request = refused_request()
        # No text of PostgreSQL's holds a zero.
        subject = "zero \0" if number in lost else f"subject {number}"
        request.state.identity = Identity(subject, tenant, (), frozenset(), "pro", "region-a")
        queue.note(request, Unauthenticated())
    await queue.drain()
    assert dropped() - before == len(lost)
    rows = await audit(api, api.headers(tenant, role="admin"), limit="200")
    assert {row["principal"] for row in rows} == {f"subject {number}" for number in range(200) if number not in lost}


async def test_payments_go_on_while_a_flood_is_refused(api: Api, tenant: str) -> None:
    ops = api.headers(tenant)
    flood = asyncio.gather(*(api.client.get("/v1/ledger/balances") for _ in range(500)))
    assert (await create(api, ops)).status_code == 201
    assert {answer.status_code for answer in await flood} == {401}
    assert (await api.client.get(f"{PATH}/{uuid4()}", headers=ops)).status_code == 404
