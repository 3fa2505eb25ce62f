"""Who gets in: tokens, tenants, permissions, and what the operation routes tell."""

import json
import re
from uuid import uuid4

import httpx
import pytest

from payments_ledger.access.tokens import Identity
from payments_ledger.demo.seed import seed
from payments_ledger.process.settings import Settings
from tests.integration.conftest import Api, serving
from tests.integration.http import BODY, PATH, assert_problem
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT_ROUTES = (
    ("POST", PATH),
    ("GET", f"{PATH}/01890a5d-ac96-774b-bcce-b302099a8057"),
    ("POST", f"{PATH}/01890a5d-ac96-774b-bcce-b302099a8057/confirm"),
    ("GET", "/v1/ledger/entries"),
    ("GET", "/v1/ledger/balances"),
)


async def call(api: Api, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    headers = {"Idempotency-Key": "k"} | headers
    return await api.client.request(method, path, headers=headers, json=BODY if path == PATH else None)


@pytest.fixture
async def seeded(database_url: str) -> None:
    await seed(database_url)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("credentials", "tenant_id", "roles"),
    [
        ({"email": "admin@local", "password": "admin123"}, "*", ["admin"]),
        ({"email": "admin@local", "password": "admin123", "tenantId": "*"}, "*", ["admin"]),
        ({"email": "ops@demo", "password": "ops123", "tenantId": "tenant_demo"}, "tenant_demo", ["ops"]),
        ({"email": "OPS@Demo", "password": "ops123"}, "tenant_demo", ["ops"]),
        ({"email": "finance@demo", "password": "finance123"}, "tenant_demo", ["finance"]),
        ({"email": "sales@demo", "password": "sales123", "tenantId": "tenant_demo"}, "tenant_demo", ["sales"]),
    ],
)
async def test_the_demo_users_get_tokens_that_say_who_they_are(
    api: Api, credentials: dict[str, str], tenant_id: str, roles: list[str]
) -> None:
    response = await api.client.post("/v1/auth/token", json=credentials)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    token = response.json()
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
    me = await api.client.get("/v1/me", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert me.status_code == 200
    assert set(me.json()) == {"sub", "tid", "roles", "perms", "plan", "region"}
    assert (me.json()["tid"], me.json()["roles"], me.json()["plan"]) == (tenant_id, roles, "pro")


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    "credentials",
    [
        {"email": "ops@demo", "password": "wrong", "tenantId": "tenant_demo"},
        {"email": "nobody@demo", "password": "ops123", "tenantId": "tenant_demo"},
        {"email": "nobody@demo", "password": "ops123"},
        {"email": "ops@demo", "password": "ops123", "tenantId": "another"},
        {"email": "ops@demo", "password": "ops123", "tenantId": "*"},
        {"email": "' OR 1=1 --", "password": "x"},
    ],
)
async def test_wrong_credentials_are_all_refused_alike(api: Api, credentials: dict[str, str]) -> None:
    response = await api.client.post("/v1/auth/token", json=credentials)
    assert_problem(response, 401, "bad_credentials")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "ops@demo"},
        {"email": "a\x00b", "password": "x"},
        {"email": "ops@demo", "password": 1},
        {"email": "ops@demo", "password": "\ud800"},
        {"email": "ops@demo", "password": "x", "tenantId": "a,b"},
        {"email": "ops@demo", "password": "x" * 2000},
    ],
)
async def test_bad_credential_bodies_are_refused(api: Api, body: dict[str, object]) -> None:
    response = await api.client.post(
        "/v1/auth/token", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert_problem(response, 422)


@pytest.mark.parametrize(("method", "path"), TENANT_ROUTES)
async def test_every_tenant_route_needs_a_token_a_tenant_and_the_right_one(
    api: Api, tenant: str, method: str, path: str
) -> None:
    good = api.headers(tenant)
    assert_problem(await call(api, method, path, {"X-Tenant-Id": tenant}), 401, "unauthenticated")
    assert_problem(await call(api, method, path, good | {"Authorization": "Basic eDp5"}), 401, "unauthenticated")
    assert_problem(await call(api, method, path, good | {"Authorization": "Bearer x"}), 401, "unauthenticated")
    assert_problem(await call(api, method, path, {"Authorization": good["Authorization"]}), 400, "missing_header")
    assert_problem(await call(api, method, path, good | {"X-Tenant-Id": "another"}), 403, "wrong_tenant")
    assert_problem(await call(api, method, path, good | {"X-Tenant-Id": "*"}), 403, "wrong_tenant")


@pytest.mark.parametrize(("method", "path"), TENANT_ROUTES)
async def test_the_global_administrator_reaches_any_existing_tenant_and_no_other(
    api: Api, tenant: str, method: str, path: str
) -> None:
    admitted = await call(api, method, path, api.headers(tenant, role="admin", home="*"))
    assert admitted.status_code in (200, 201) or admitted.json()["code"] == "payment_not_found"
    for unknown in ("nowhere", "a,b", f"{tenant},{tenant}"):
        assert_problem(
            await call(api, method, path, api.headers(unknown, role="admin", home="*")), 404, "unknown_tenant"
        )
    assert_problem(await call(api, method, path, api.headers("*", role="admin", home="*")), 403, "wrong_tenant")


@pytest.mark.parametrize(
    ("method", "path", "admitted"),
    [(method, path, path != PATH and method == "GET" and "ledger" not in path) for method, path in TENANT_ROUTES],
)
async def test_sales_may_read_payments_and_nothing_else(
    api: Api, tenant: str, method: str, path: str, admitted: bool
) -> None:
    response = await call(api, method, path, api.headers(tenant, role="sales"))
    assert_problem(response, 404, "payment_not_found") if admitted else assert_problem(
        response, 403, "permission_denied"
    )


async def test_a_token_of_an_unknown_tenant_writes_nothing(api: Api) -> None:
    """The tenant was removed while its token lived: the foreign key refuses, and the answer is no 2xx."""
    identity = Identity("s", "gone", ("ops",), frozenset({"payments:write"}), "pro", "region-a")
    headers = {"Authorization": f"Bearer {api.tokens.issue(identity)}", "X-Tenant-Id": "gone"}
    assert (await api.client.post(PATH, json=BODY, headers=headers)).status_code >= 400


async def test_before_the_migrations_every_route_says_that_the_schema_is_missing(
    postgres: PostgresServer, settings: Settings
) -> None:
    empty = settings.model_copy(update={"database_url": postgres.create_database("empty")})
    async with serving(empty) as api:
        token = api.tokens.issue(Identity(str(uuid4()), "t", ("ops",), frozenset(), "pro", "region-a"))
        headers = {"Authorization": f"Bearer {token}", "X-Tenant-Id": "t"}
        for method, path in TENANT_ROUTES:
            response = await call(api, method, path, headers)
            assert_problem(response, 503, "schema_missing")
            assert response.headers["Retry-After"] == "1"
        assert (await api.client.get("/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", PATH, 405), ("PUT", "/v1/me", 405)]
)
async def test_paths_and_methods_that_do_not_exist_are_problems_too(
    api: Api, method: str, path: str, status: int
) -> None:
    assert_problem(await api.client.request(method, path), status)


async def test_health_readiness_metrics_and_documentation_are_open(api: Api, tenant: str) -> None:
    await call(api, "POST", PATH, api.headers(tenant))
    assert (await api.client.get("/healthz")).json() == {"status": "ok"}
    ready = (await api.client.get("/readyz")).json()
    assert ready == {"status": "ok", "dependencies": {"postgresql": "ok", "redis": "ok", "rabbitmq": "ok"}}
    await api.client.get("/scanner/1")
    metrics = (await api.client.get("/metrics")).text
    assert 'ledger_http_requests_total{method="POST",route="/v1/payment-intents",status="201"}' in metrics
    assert "scanner" not in metrics
    assert (await api.client.get("/docs")).status_code == 200
    paths = (await api.client.get("/openapi.json")).json()["paths"]
    assert set(paths) >= {"/v1/auth/token", "/v1/me", PATH, "/v1/ledger/entries", "/v1/ledger/balances", "/readyz"}


async def test_the_documentation_comes_from_here_alone(api: Api) -> None:
    """Scripts and styles are files of ours, and the browser is told to take no others."""
    page = await api.client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
    assert "//" not in page.text
    assert not re.search(r"<script>|<style|style=| on[a-z]+=", page.text)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for address in loaded:
        if not address.startswith("data:"):
            file = await api.client.get(f"/{address}")
            assert (file.status_code, file.headers["Content-Type"].partition(";")[0]) == (
                200,
                "text/css" if address.endswith(".css") else "text/javascript",
            )
    start = (await api.client.get("/docs/start.js")).text
    assert 'url: "openapi.json"' in start
    # By default Swagger UI shows a badge of a validator on the internet.
    assert "validatorUrl: null" in start


async def test_the_root_leads_to_the_documentation(api: Api) -> None:
    answer = await api.client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/docs")


@pytest.mark.parametrize("path", [PATH, "/v1/me", "/healthz", "/docs", "/v1/admin/users", "/v1/ledger/entries"])
async def test_a_slash_too_many_leads_nowhere_least_of_all_to_a_host_that_the_client_named(
    api: Api, tenant: str, path: str
) -> None:
    headers = api.headers(tenant, role="admin") | {"Host": "attacker.example"}
    answer = await api.client.get(f"{path}/", headers=headers)
    assert_problem(answer, 404, "not_found")
    assert "Location" not in answer.headers


async def test_a_script_of_another_origin_is_answered_only_if_it_was_named(settings: Settings) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with serving(settings) as api:
        answer = await api.client.options(PATH, headers=asked)
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with serving(settings.model_copy(update={"cors_origins": ("https://shop.example",)})) as api:
        answer = await api.client.options(PATH, headers=asked)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://shop.example")
        other = await api.client.options(PATH, headers=asked | {"Origin": "https://elsewhere.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/healthz"), ("GET", "/nowhere"), ("POST", PATH), ("GET", "/v1/me"), ("GET", "/docs")]
)
async def test_answers_are_not_kept_guessed_at_or_framed(api: Api, method: str, path: str) -> None:
    headers = (await api.client.request(method, path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert ("script-src" in headers["Content-Security-Policy"]) is (path == "/docs")


async def test_what_operators_look_at_can_have_a_port_of_its_own(settings: Settings, tenant: str) -> None:
    async with serving(settings.model_copy(update={"internal_port": 9000})) as api:
        for path in ("/metrics", "/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/openapi.json", "/"):
            assert_problem(await api.client.get(f"http://test:80{path}"), 404, "not_found")
            assert (await api.client.get(f"http://test:9000{path}")).status_code == (307 if path == "/" else 200)
        for port in (80, 9000):
            assert (await api.client.get(f"http://test:{port}/healthz")).status_code == 200
        headers = api.headers(tenant)
        assert (await api.client.get("http://test:80/v1/me", headers=headers)).status_code == 200
        assert_problem(await api.client.get("http://test:9000/v1/me", headers=headers), 404, "not_found")


async def test_the_document_names_what_limits_can_answer(api: Api) -> None:
    paths = (await api.client.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/v1/"):
                assert "429" in operation["responses"], path
            if "requestBody" in operation:
                assert {"408", "413", "415"} <= set(operation["responses"]), path
