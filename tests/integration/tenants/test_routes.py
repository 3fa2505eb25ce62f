"""What administrators change holds at once here and soon everywhere, tokens notwithstanding, and is written down."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from payments_ledger.access import access_cache as access
from payments_ledger.access.access_cache import STALE_SECONDS_MAX
from payments_ledger.access.tokens import Identity
from payments_ledger.api import create_app
from payments_ledger.process.settings import Settings
from tests.integration.administration import DENY_ALL, NOBODY, POLICIES, USERS, audit, put, subject_of
from tests.integration.conftest import Api
from tests.integration.http import PATH, assert_problem, create

pytestmark = pytest.mark.anyio

UP_TO_100 = {
    "effect": "deny",
    "actions": ["payments:write"],
    "roles": ["ops"],
    "amount": {"currency": "BRL", "minimum": "100.01"},
}

ADMIN_ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("GET", POLICIES, None),
    ("PUT", f"{POLICIES}/a", DENY_ALL),
    ("DELETE", f"{POLICIES}/a", None),
    ("GET", USERS, None),
    ("POST", f"{USERS}/{NOBODY}/disable", None),
    ("POST", f"{USERS}/{NOBODY}/enable", None),
    ("PUT", f"{USERS}/{NOBODY}/roles", {"roles": []}),
    ("GET", "/v1/admin/tenant", None),
    ("POST", "/v1/admin/tenant/suspend", None),
    ("POST", "/v1/admin/tenant/resume", None),
    ("GET", "/v1/admin/audit", None),
    ("GET", "/v1/admin/chaos", None),
    ("PUT", "/v1/admin/chaos", {"enabled": False}),
)


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ROUTES)
async def test_only_administrators_get_in(api: Api, tenant: str, method: str, path: str, body: Any) -> None:
    for role in ("ops", "sales"):
        response = await api.client.request(method, path, json=body, headers=api.headers(tenant, role=role))
        assert_problem(response, 403, "permission_denied")
    assert_problem(await api.client.request(method, path, json=body), 401, "unauthenticated")
    wrong = api.headers(tenant, role="admin") | {"X-Tenant-Id": "*"}
    assert_problem(await api.client.request(method, path, json=body, headers=wrong), 403, "wrong_tenant")


async def test_every_tenant_begins_with_the_policy_that_its_roles_permit(api: Api, tenant: str) -> None:
    response = await api.client.get(POLICIES, headers=api.headers(tenant, role="admin"))
    empty: dict[str, Any] = {"actions": [], "roles": [], "subjects": [], "plans": [], "regions": []}
    assert response.json() == [{"name": "what-roles-permit", "effect": "allow", **empty, "amount": None, "hours": None}]


async def test_a_policy_is_put_replaced_and_deleted_and_each_time_written_down(api: Api, tenant: str) -> None:
    admin = api.headers(tenant, role="admin")
    hours = {"start": "22:00", "end": "06:00", "zone": "America/Sao_Paulo"}
    for terms in (UP_TO_100, {"effect": "deny", "roles": ["sales"], "hours": hours}):
        response = await put(api, admin, "limits", terms)
        assert response.status_code == 200, response.text
        listed = (await api.client.get(POLICIES, headers=admin)).json()
        assert listed[0] == response.json()
        assert listed[0].items() >= {"name": "limits", "roles": terms["roles"]}.items()
    assert listed[0]["hours"] == hours
    assert (await put(api, admin, "limits", terms)).status_code == 200
    response = await api.client.delete(f"{POLICIES}/limits", headers=admin)
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await api.client.delete(f"{POLICIES}/limits", headers=admin), 404, "policy_not_found")

    rows = await audit(api, admin, target="limits")
    assert [row["action"] for row in rows] == ["policy.delete", "policy.put", "policy.put"]
    assert rows[0]["detail"]["after"] is None
    assert rows[1]["detail"]["before"]["amount"] == {"currency": "BRL", "minimum": "100.01", "maximum": None}
    assert rows[1]["detail"]["after"] == rows[0]["detail"]["before"]
    assert rows[2]["detail"]["before"] is None
    assert {row["principal"] for row in rows} == {subject_of(admin)}
    assert rows[0]["correlation_id"] == response.headers["X-Correlation-Id"]


@pytest.mark.parametrize(
    ("name", "terms", "pointer"),
    [
        ("Big", {"effect": "deny"}, "name"),
        ("x" * 65, {"effect": "deny"}, "name"),
        ("p", {}, "#/effect"),
        ("p", {"effect": "permit"}, "#/effect"),
        ("p", {"effect": "deny", "unknown": 1}, "#/unknown"),
        ("p", {"effect": "deny", "actions": ["payments:delete"]}, "#/actions/0"),
        ("p", {"effect": "deny", "roles": [""]}, "#/roles/0"),
        ("p", {"effect": "deny", "roles": ["a\u0000"]}, "#/roles/0"),
        ("p", {"effect": "deny", "roles": ["r"] * 101}, "#/roles"),
        ("p", {"effect": "deny", "plans": "pro"}, "#/plans"),
        ("p", {"effect": "deny", "amount": {"currency": "BRL", "maximum": "1"}}, "#/amount"),
        ("p", UP_TO_100 | {"actions": ["payments:write", "admin"]}, "#/amount"),
        ("p", UP_TO_100 | {"amount": {"currency": "BRL"}}, "#/amount"),
        ("p", UP_TO_100 | {"amount": {"currency": "BRL", "minimum": "2", "maximum": "1"}}, "#/amount"),
        ("p", UP_TO_100 | {"amount": {"currency": "BRL", "minimum": "1.005"}}, "#/amount/minimum"),
        ("p", UP_TO_100 | {"amount": {"currency": "XXX", "minimum": "1"}}, "#/amount/currency"),
        ("p", UP_TO_100 | {"amount": {"currency": "BRL", "minimum": True}}, "#/amount/minimum"),
        ("p", {"effect": "deny", "hours": {"start": "9:00", "end": "18:00", "zone": "UTC"}}, "#/hours/start"),
        ("p", {"effect": "deny", "hours": {"start": "09:00", "end": "24:00", "zone": "UTC"}}, "#/hours/end"),
        ("p", {"effect": "deny", "hours": {"start": "09:00", "end": "09:00", "zone": "UTC"}}, "#/hours"),
        ("p", {"effect": "deny", "hours": {"start": "09:00", "end": "18:00", "zone": "Mars/Base"}}, "#/hours/zone"),
        ("p", {"effect": "deny", "hours": {"start": "09:00", "end": "18:00", "zone": "../UTC"}}, "#/hours/zone"),
        ("p", {"effect": "deny", "hours": {"start": "09:00", "end": "18:00", "zone": "America"}}, "#/hours/zone"),
    ],
)
async def test_a_policy_that_cannot_be_is_refused_by_naming_the_field(
    api: Api, tenant: str, name: str, terms: Any, pointer: str
) -> None:
    admin = api.headers(tenant, role="admin")
    assert_problem(await put(api, admin, name, terms), 422, place=pointer)
    assert len((await api.client.get(POLICIES, headers=admin)).json()) == 1


async def test_a_role_may_create_and_confirm_up_to_an_amount(api: Api, tenant: str) -> None:
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    large = (await create(api, ops, amount="100.01")).json()["id"]
    assert (await put(api, admin, "small-amounts", UP_TO_100)).status_code == 200
    assert (await create(api, ops, amount="100.00")).status_code == 201
    assert (await create(api, ops, amount="100.01", currency="USD")).status_code == 201
    assert (await create(api, admin, amount="100.01")).status_code == 201
    denied = await create(api, ops, amount="100.01")
    assert_problem(denied, 403, "policy_denied")
    assert "small-amounts" in denied.json()["detail"]
    confirm = f"{PATH}/{large}/confirm"
    assert_problem(await api.client.post(confirm, headers=ops | {"Idempotency-Key": "k"}), 403, "policy_denied")
    assert (await api.client.post(confirm, headers=admin | {"Idempotency-Key": "k"})).status_code == 200
    # What fails is not kept under its key: without the policy the same request passes.
    keyed = ops | {"Idempotency-Key": "later"}
    assert_problem(await create(api, keyed, amount="100.01"), 403, "policy_denied")
    await api.client.delete(f"{POLICIES}/small-amounts", headers=admin)
    assert (await create(api, keyed, amount="100.01")).status_code == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        ("GET", f"{PATH}/{NOBODY}"),
        ("POST", f"{PATH}/{NOBODY}/confirm"),
        ("GET", "/v1/ledger/entries"),
        ("GET", "/v1/ledger/balances"),
        *((method, path) for method, path, _ in ADMIN_ROUTES),
    ],
)
async def test_no_tenant_route_passes_a_policy_that_denies(api: Api, tenant: str, method: str, path: str) -> None:
    admin, other_admin = api.headers(tenant, role="admin"), api.headers(tenant, role="admin")
    await put(api, admin, "not-they", DENY_ALL | {"subjects": [subject_of(other_admin)]})
    body: dict[str, str] | None = None if method in ("GET", "DELETE") else {}
    response = await api.client.request(method, path, json=body, headers=other_admin | {"Idempotency-Key": "k"})
    assert_problem(response, 403, "policy_denied")


async def test_the_routes_above_are_all_tenant_routes_there_are(api: Api) -> None:
    paths = (await api.client.get("/openapi.json")).json()["paths"]
    here = {
        (method, path.replace(NOBODY, "{id}").replace(f"{POLICIES}/a", f"{POLICIES}/{{name}}"))
        for method, path, _ in ADMIN_ROUTES
    }
    served = {
        (method.upper(), path.replace("{user_id}", "{id}"))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/admin")
    }
    assert served == here


async def test_nobody_locks_himself_out(api: Api, tenant: str) -> None:
    admin = api.headers(tenant, role="admin")
    me = subject_of(admin)
    for response in (
        await put(api, admin, "stop", DENY_ALL),
        await api.client.delete(f"{POLICIES}/what-roles-permit", headers=admin),
        await api.client.post(f"{USERS}/{me}/disable", headers=admin),
        await api.client.put(f"{USERS}/{me}/roles", json={"roles": ["ops"]}, headers=admin),
        await api.client.post("/v1/admin/tenant/suspend", headers=api.headers("*", role="admin")),
    ):
        assert_problem(response, 409, "would_lock_out_administrator")
    assert (await api.client.get(POLICIES, headers=admin)).status_code == 200
    # A tenant's policies do not bind the global administrator, who can let everybody in again.
    root = api.headers(tenant, role="admin", home="*")
    assert (await put(api, root, "stop", DENY_ALL)).status_code == 200
    assert_problem(await api.client.get(POLICIES, headers=admin), 403, "policy_denied")
    assert (await api.client.delete(f"{POLICIES}/stop", headers=root)).status_code == 204
    assert (await api.client.get(POLICIES, headers=admin)).status_code == 200


async def test_users_are_listed_in_pages(api: Api, tenant: str) -> None:
    admin = api.headers(tenant, role="admin")
    expected = [subject_of(admin), *(api.add_user(tenant, "ops") for _ in range(4))]
    url, seen = f"{USERS}?limit=2", []
    while url:
        response = await api.client.get(url, headers=admin)
        seen += [user["id"] for user in response.json()]
        url = response.links.get("next", {}).get("url", "")
    assert seen == expected


async def test_roles_are_assigned_and_count_at_once_whatever_the_token_says(api: Api, tenant: str) -> None:
    admin, sales = api.headers(tenant, role="admin"), api.headers(tenant, role="sales")
    path = f"{USERS}/{subject_of(sales)}/roles"
    assert_problem(await create(api, sales), 403, "permission_denied")
    response = await api.client.put(path, json={"roles": ["ops", "sales"]}, headers=admin)
    assert (response.status_code, response.json()["roles"]) == (200, ["ops", "sales"])
    assert (await create(api, sales)).status_code == 201
    me = (await api.client.get("/v1/me", headers=sales)).json()
    assert (me["roles"], "payments:write" in me["perms"]) == (["ops", "sales"], True)
    assert (await api.client.put(path, json={"roles": []}, headers=admin)).json()["roles"] == []
    assert_problem(await create(api, sales), 403, "permission_denied")
    unknown = await api.client.put(path, json={"roles": ["king"]}, headers=admin)
    assert_problem(unknown, 422, "invalid", "#/roles")
    rows = await audit(api, admin, action="user.assign_roles")
    assert [row["detail"] for row in rows] == [
        {"before": {"roles": ["ops", "sales"]}, "after": {"roles": []}},
        {"before": {"roles": ["sales"]}, "after": {"roles": ["ops", "sales"]}},
    ]


async def test_another_tenants_user_cannot_be_told_from_none(api: Api, tenant: str, new_tenant: Any) -> None:
    admin = api.headers(tenant, role="admin")
    theirs = api.add_user(await new_tenant(), "ops")
    for user_id in (theirs, NOBODY):
        for method, suffix, body in (
            ("POST", "disable", None),
            ("POST", "enable", None),
            ("PUT", "roles", {"roles": []}),
        ):
            response = await api.client.request(method, f"{USERS}/{user_id}/{suffix}", json=body, headers=admin)
            assert_problem(response, 404, "user_not_found")


async def last_admitted(client: httpx.AsyncClient, headers: dict[str, str], code: str) -> float:
    """Asks until the client is refused with the code; how many seconds on the last admitted request began, 0 if none.

    How long a request took says nothing of what it was allowed to know.
    """
    since, last = time.monotonic(), 0.0
    while True:
        began = time.monotonic() - since
        response = await client.get("/v1/ledger/balances", headers=headers)
        if response.status_code != 200:
            assert response.json()["code"] == code
            return last
        last = began
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("change", ["disable", "roles", "suspend", "policy"])
async def test_a_change_holds_in_every_process_within_the_bound_tokens_notwithstanding(
    api: Api, tenant: str, other_process: httpx.AsyncClient, change: str
) -> None:
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    root = api.headers(tenant, role="admin", home="*")
    for client in (api.client, other_process):
        assert (await client.get("/v1/ledger/balances", headers=ops)).status_code == 200
    user = f"{USERS}/{subject_of(ops)}"
    requests: dict[str, tuple[str, str, Any, dict[str, str], str]] = {
        "disable": ("POST", f"{user}/disable", None, admin, "token_revoked"),
        "roles": ("PUT", f"{user}/roles", {"roles": []}, admin, "permission_denied"),
        "suspend": ("POST", "/v1/admin/tenant/suspend", None, root, "tenant_suspended"),
        "policy": ("PUT", f"{POLICIES}/no-ops", DENY_ALL | {"roles": ["ops"]}, admin, "policy_denied"),
    }
    method, path, body, headers, code = requests[change]
    response = await api.client.request(method, path, json=body, headers=headers)
    assert response.status_code == 200
    assert await last_admitted(api.client, ops, code) == 0
    assert await last_admitted(other_process, ops, code) <= STALE_SECONDS_MAX


async def test_a_disabled_user_and_a_suspended_tenant_come_back(api: Api, tenant: str) -> None:
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    root = api.headers(tenant, role="admin", home="*")
    user = f"{USERS}/{subject_of(ops)}"
    disabled = await api.client.post(f"{user}/disable", headers=admin)
    assert disabled.json()["disabled_at"] is not None
    for path in ("/v1/me", "/v1/ledger/balances"):
        assert_problem(await api.client.get(path, headers=ops), 401, "token_revoked")
    assert (await api.client.post(f"{user}/enable", headers=admin)).json()["disabled_at"] is None
    assert (await create(api, ops)).status_code == 201

    assert_problem(await api.client.post("/v1/admin/tenant/suspend", headers=admin), 403, "permission_denied")
    suspended = await api.client.post("/v1/admin/tenant/suspend", headers=root)
    assert suspended.json()["suspended_at"] is not None
    for headers in (admin, ops):
        assert_problem(await api.client.get("/v1/me", headers=headers), 403, "tenant_suspended")
        assert_problem(await create(api, headers), 403, "tenant_suspended")
    assert (await api.client.get("/v1/admin/tenant", headers=root)).json() == suspended.json()
    assert (await api.client.post("/v1/admin/tenant/resume", headers=root)).json()["suspended_at"] is None
    assert (await create(api, ops)).status_code == 201
    # What the global administrator did is written down in the tenant that he touched.
    rows = await audit(api, admin, principal=subject_of(root))
    assert [row["action"] for row in rows] == ["tenant.resume", "tenant.suspend"]
    assert rows[1]["detail"] == {"before": {"suspended": False}, "after": {"suspended": True}}


async def test_a_user_is_the_same_in_another_spelling_of_the_id(api: Api, tenant: str) -> None:
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    spelled = subject_of(ops).upper()
    denied = await put(api, admin, "not-they", {"effect": "deny", "subjects": [spelled]})
    assert denied.json()["subjects"] == [subject_of(ops)]
    assert_problem(await create(api, ops), 403, "policy_denied")
    assert (await api.client.delete(f"{POLICIES}/not-they", headers=admin)).status_code == 204
    await create(api, ops)
    assert [row["action"] for row in await audit(api, admin, principal=spelled)] == ["payment.create"]


async def test_a_token_of_a_user_who_never_was_is_refused(api: Api, tenant: str) -> None:
    for subject in (NOBODY, "no uuid"):
        identity = Identity(subject, tenant, ("admin",), frozenset({"admin"}), "pro", "region-a")
        headers = {"Authorization": f"Bearer {api.tokens.issue(identity)}", "X-Tenant-Id": tenant}
        assert_problem(await api.client.get(POLICIES, headers=headers), 401, "token_revoked")


async def test_a_tenant_has_so_many_policies_and_no_more(
    api: Api, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments_ledger.tenants.use_cases.POLICIES_MAX", 2)
    admin = api.headers(tenant, role="admin")
    assert (await put(api, admin, "one", {"effect": "allow"})).status_code == 200
    assert_problem(await put(api, admin, "two", {"effect": "allow"}), 409, "too_many_policies")
    assert (await put(api, admin, "one", {"effect": "deny", "roles": ["ops"]})).status_code == 200


async def test_two_administrators_who_disable_each_other_at_once_take_turns(api: Api, tenant: str) -> None:
    one, two = api.headers(tenant, role="admin"), api.headers(tenant, role="admin")
    answers = await asyncio.gather(
        api.client.post(f"{USERS}/{subject_of(two)}/disable", headers=one),
        api.client.post(f"{USERS}/{subject_of(one)}/disable", headers=two),
        *(put(api, one, f"p-{number}", {"effect": "allow"}) for number in range(20)),
    )
    assert all(answer.status_code in (200, 401) for answer in answers)


async def test_without_postgresql_the_answer_is_503_and_never_an_old_permission(
    api: Api, tenant: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    ops = api.headers(tenant)
    assert (await api.client.get("/v1/me", headers=ops)).status_code == 200
    monkeypatch.setattr(access, "STALE_SECONDS_MAX", 0.0)
    app = create_app(settings.model_copy(update={"database_url": "postgresql://app:app@127.0.0.1:1/app"}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        response = await client.get("/v1/me", headers=ops)
    assert_problem(response, 503, "database_unavailable")
    assert response.headers["Retry-After"] == "1"
