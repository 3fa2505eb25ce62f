"""What is wrong with a request is told in words of ours, all of it at once, and with the name of where it lies."""

import json
import re
from typing import Any

import pytest

from payments_ledger.api import create_app
from payments_ledger.process.settings import Settings
from tests.integration.conftest import Api
from tests.integration.http import BODY, PATH, assert_problem

pytestmark = pytest.mark.anyio

POLICY = "/v1/admin/policies/p"
ROLES = "/v1/admin/users/01890a5d-ac96-774b-bcce-b302099a8057/roles"
CREDENTIALS = {"email": "nobody@test", "password": "p"}
HOURS = {"start": "09:00", "end": "18:00", "zone": "UTC"}
# As pydantic and FastAPI would say it, or Python.
NOT_OUR_WORDS = re.compile(
    r"Value error|Assertion|Extra inputs|Input should|Field required|valid (string|list|dict|integer|boolean)"
    r"|should (have|be|match)|String |List |pattern|regex|\^|pydantic|Decimal|NoneType|\bstr\b|\bint\b"
)

# Each field of each body, as (method, path, body, pointer).
FIELDS: list[tuple[str, str, dict[str, Any], str]] = [
    *(("POST", "/v1/auth/token", CREDENTIALS, f"#/{name}") for name in ("email", "password", "tenantId", "x")),
    *(("POST", PATH, BODY, f"#/{name}") for name in ("amount", "currency", "customer_ref", "x")),
    *(("POST", f"{PATH}/batch", {}, f"#/{name}") for name in ("payment_intents", "x")),
    *(
        ("PUT", POLICY, {"effect": "deny", "actions": ["payments:write"]}, f"#/{name}")
        for name in ("effect", "actions", "roles", "subjects", "plans", "regions", "amount", "hours", "x")
    ),
    *(("PUT", POLICY, {"effect": "deny"}, f"#/{name}/0") for name in ("actions", "roles", "plans")),
    *(
        ("PUT", POLICY, {"effect": "deny", "actions": ["payments:write"], "amount": {"currency": "BRL"}}, pointer)
        for pointer in ("#/amount/currency", "#/amount/minimum", "#/amount/maximum", "#/amount/x")
    ),
    *(("PUT", POLICY, {"effect": "deny", "hours": HOURS}, f"#/hours/{name}") for name in ("start", "end", "zone", "x")),
    *(("PUT", ROLES, {"roles": []}, pointer) for pointer in ("#/roles", "#/roles/0", "#/x")),
    *(
        ("PUT", "/v1/admin/chaos", {"enabled": False}, f"#/{name}")
        for name in ("enabled", "fail_percent", "latency_ms", "x")
    ),
]


def with_value(body: dict[str, Any], pointer: str, value: str) -> str:
    """The body as JSON, with a text in the place of what the pointer names."""
    first, *rest = pointer.removeprefix("#/").split("/")
    inner: Any = "THE VALUE"
    if rest:
        inner = ["THE VALUE"] if rest == ["0"] else {**body.get(first, {}), rest[0]: "THE VALUE"}
    return json.dumps({**body, first: inner}).replace('"THE VALUE"', value)


def administrator(api: Api, tenant: str) -> dict[str, str]:
    return api.headers(tenant, role="admin") | {"Content-Type": "application/json", "Idempotency-Key": "k"}


@pytest.mark.parametrize("number", ["1e9223372036854775808", "-1e-9223372036854775808", "1e999999999999999999"])
async def test_a_number_beyond_every_number_is_refused_in_any_field_by_its_name(
    api: Api, tenant: str, number: str
) -> None:
    headers = administrator(api, tenant)
    for method, path, body, pointer in FIELDS:
        text = with_value(body, pointer, number)
        response = await api.client.request(method, path, content=text, headers=headers)
        assert_problem(response, 422, place=pointer)


async def test_a_number_beyond_every_number_in_a_batch_harms_its_payment_alone(api: Api, tenant: str) -> None:
    items = ", ".join([json.dumps(BODY), '{"amount": 1e9223372036854775808}', "1e9223372036854775808"])
    text = f'{{"payment_intents": [{items}]}}'
    outcomes = (await api.client.post(f"{PATH}/batch", content=text, headers=administrator(api, tenant))).json()[
        "outcomes"
    ]
    assert [outcome["status"] for outcome in outcomes] == [201, 422, 422]
    assert outcomes[1]["problem"]["errors"][0]["pointer"].startswith("#/payment_intents/1/")
    assert [error["pointer"] for error in outcomes[2]["problem"]["errors"]] == ["#/payment_intents/2"]


@pytest.mark.parametrize(
    "value", ["null", "true", "[]", "{}", '""', '"\\u0000"', '"x"', "7", "-1", "1.5", "[[]]", f'"{"x" * 2000}"']
)
async def test_no_fault_is_told_in_the_words_of_a_library(api: Api, tenant: str, value: str) -> None:
    headers = administrator(api, tenant)
    for method, path, body, pointer in FIELDS:
        response = await api.client.request(method, path, content=with_value(body, pointer, value), headers=headers)
        assert response.status_code < 500
        assert not NOT_OUR_WORDS.search(response.text), response.text
        for error in response.json().get("errors", []) if response.status_code == 422 else []:
            assert error["detail"] != "is not valid", response.text


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            '{"amount": "x", "currency": "brl", "customer_ref": "", "tip": 1}',
            {
                "#/amount": "The amount must be written in plain digits with a dot, such as 100.00.",
                "#/currency": 'The currency is not an ISO 4217 currency with minor units. Did you mean "BRL"?',
                "#/customer_ref": "must not be empty",
                "#/tip": "is not known here",
            },
        ),
        (
            '{"amount": 10.5, "currency": "JPY", "customer_ref": 7}',
            {
                "#/amount": "JPY has 0 decimal places; the amount has more.",
                "#/customer_ref": "must be a text",
            },
        ),
        (
            '{"amount": 0, "currency": "R$", "customer_ref": "C"}',
            {"#/amount": "The amount must be above zero.", "#/currency": "must have at least 3 characters"},
        ),
        (
            '{"amount": true, "currency": "XYZ", "customer_ref": "C"}',
            {
                "#/amount": "must be a number or a decimal text such as 100.00",
                "#/currency": "The currency is not an ISO 4217 currency with minor units.",
            },
        ),
        ("{}", dict.fromkeys(("#/amount", "#/currency", "#/customer_ref"), "is required")),
        ("[]", {"#": "must be an object"}),
        ('{"\\ud800": 1}', {"#": "must not hold lone surrogates"}),
        ("", {"#": "is required"}),
        (
            '{"amount": 1, "currency": "BRL", "customer_ref": "C", "a/b~c d": 1, "\\u00e9": 1}',
            {"#/a~1b~0c%20d": "is not known here", "#/%C3%A9": "is not known here"},
        ),
    ],
)
async def test_all_faults_of_a_payment_are_told_at_once(
    api: Api, tenant: str, text: str, faults: dict[str, str]
) -> None:
    headers = administrator(api, tenant)
    response = await api.client.post(PATH, content=text, headers=headers)
    assert_problem(response, 422, "invalid_request")
    assert {error["pointer"]: error["detail"] for error in response.json()["errors"]} == faults
    many = await api.client.post(f"{PATH}/batch", content=f'{{"payment_intents": [{text or 7}]}}', headers=headers)
    if text:
        [outcome] = many.json()["outcomes"]
        told = {error["pointer"]: error["detail"] for error in outcome["problem"]["errors"]}
        assert told == {f"#/payment_intents/0{pointer[1:]}": detail for pointer, detail in faults.items()}


async def test_all_faults_of_a_policy_are_told_at_once(api: Api, tenant: str) -> None:
    terms = {
        "effect": "deny",
        "actions": ["payments:write"],
        "amount": {"currency": "brl", "minimum": "1"},
        "hours": {"start": "09:00", "end": "18:00", "zone": "Mars/Base"},
    }
    response = await api.client.put(POLICY, json=terms, headers=administrator(api, tenant))
    assert_problem(response, 422, "invalid_request", "#/amount/currency")
    assert_problem(response, 422, "invalid_request", "#/hours/zone")


@pytest.mark.parametrize(
    ("method", "path", "changes", "status", "name"),
    [
        ("GET", "/v1/ledger/entries?from=x", {}, 422, "from"),
        ("GET", "/v1/ledger/entries?limit=x", {}, 422, "limit"),
        ("GET", "/v1/ledger/entries?limit=201", {}, 422, "limit"),
        ("GET", f"/v1/ledger/entries?limit={'9' * 5000}", {}, 422, "limit"),
        ("GET", "/v1/ledger/entries?cursor=x", {}, 400, "cursor"),
        ("GET", "/v1/admin/audit?principal=%00", {}, 422, "principal"),
        ("GET", "/v1/admin/audit?target=", {}, 422, "target"),
        ("GET", f"{PATH}/x", {}, 422, "payment_id"),
        ("PUT", "/v1/admin/policies/Big", {}, 422, "name"),
        ("POST", "/v1/admin/users/x/disable", {}, 422, "user_id"),
        ("POST", PATH, {"Idempotency-Key": "x" * 256}, 400, "Idempotency-Key"),
        ("GET", "/v1/ledger/balances", {"X-Tenant-Id": ""}, 400, "X-Tenant-Id"),
    ],
)
async def test_a_fault_of_a_parameter_or_header_has_its_name_and_no_pointer(
    api: Api, tenant: str, method: str, path: str, changes: dict[str, str], status: int, name: str
) -> None:
    body = BODY if path == PATH else {"effect": "deny"}
    headers = api.headers(tenant, role="admin") | changes
    response = await api.client.request(method, path, json=body if method in ("POST", "PUT") else None, headers=headers)
    assert_problem(response, status, place=name)
    assert not NOT_OUR_WORDS.search(response.json()["detail"]), response.text
    assert all("pointer" not in error for error in response.json()["errors"])


async def test_every_route_refuses_query_parameters_that_it_does_not_know_by_name(api: Api, tenant: str) -> None:
    headers = api.headers(tenant, role="admin") | {"Idempotency-Key": "k"}
    asked = 0
    for template, operations in create_app(Settings(_env_file=None)).openapi()["paths"].items():
        path = re.sub(r"\{[^}]+\}", "01890a5d-ac96-774b-bcce-b302099a8057", template)
        for method in operations:
            body = CREDENTIALS if path == "/v1/auth/token" else {}
            response = await api.client.request(
                method,
                f"{path}?limt=1&Cursor=2",
                json=body if method in ("post", "put", "patch") else None,
                headers=headers,
            )
            assert_problem(response, 422, "invalid_request", "limt")
            assert_problem(response, 422, "invalid_request", "Cursor")
            asked += 1
    assert asked > 20
    assert (await api.client.get("/v1/ledger/entries?limt=1")).status_code == 401


@pytest.mark.parametrize("path", ["/v1/ledger/entries", "/v1/admin/users", "/v1/admin/audit"])
async def test_a_parameter_that_is_repeated_is_refused_with_those_that_are_unknown(
    api: Api, tenant: str, path: str
) -> None:
    headers = administrator(api, tenant)
    response = await api.client.get(f"{path}?limit=1&limit=2&limt=3&cursor=", headers=headers)
    assert_problem(response, 422, "invalid_request")
    assert response.json()["errors"] == [
        {"parameter": "limit", "detail": "was sent more than once"},
        {"parameter": "limt", "detail": "is not known here"},
    ]


async def test_faults_of_path_query_and_body_are_told_at_once(api: Api, tenant: str) -> None:
    response = await api.client.put(
        "/v1/admin/users/7/roles?x=1", content='{"roles": [""], "y": 2}', headers=administrator(api, tenant)
    )
    assert_problem(response, 422, "invalid_request")
    told = [error.get("parameter") or error["pointer"] for error in response.json()["errors"]]
    assert told == ["user_id", "#/roles/0", "#/y", "x"]


async def test_a_path_of_its_own_is_no_payment(api: Api, tenant: str) -> None:
    response = await api.client.get(f"{PATH}/batch", headers=administrator(api, tenant))
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
