"""The HTTP contract of payment intents: exact money, clear refusals, replays to the byte."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from payments_ledger.web import bodies
from payments_ledger.web.bodies import BODY_BYTES_MAX
from tests.integration.books import broken_checks
from tests.integration.conftest import Api
from tests.integration.http import BODY, PATH, assert_problem, create

pytestmark = pytest.mark.anyio


async def test_a_created_intent_can_be_read_where_location_says(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    response = await create(api, headers)
    assert response.status_code == 201
    intent = response.json()
    assert list(intent)[:7] == ["id", "amount", "currency", "status", "customer_ref", "created_at", "updated_at"]
    assert intent["status"] == "CREATED"
    assert intent["created_at"].endswith("Z")
    read = await api.client.get(response.headers["Location"], headers=headers)
    assert (read.status_code, read.content) == (200, response.content)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("9007199254740993.01", "BRL", "9007199254740993.01"),
        ('"9007199254740993.01"', "BRL", "9007199254740993.01"),
        ("100.00", "BRL", "100.00"),
        ("100", "BRL", "100.00"),
        ("100.5", "BRL", "100.50"),
        ("100", "JPY", "100"),
        ('"100"', "JPY", "100"),
        ("1.234", "KWD", "1.234"),
        ("100.00", "JPY", "100"),
        ('"100.00"', "JPY", "100"),
        ("1.000", "BRL", "1.00"),
        ('"1.000"', "BRL", "1.00"),
        ("1e2", "BRL", "100.00"),
        ("92233720368547758.07", "BRL", "92233720368547758.07"),
    ],
)
async def test_an_amount_comes_back_exactly(api: Api, tenant: str, amount: str, currency: str, shown: str) -> None:
    headers = api.headers(tenant) | {"Content-Type": "application/json"}
    text = f'{{"amount": {amount}, "currency": "{currency}", "customer_ref": "C"}}'
    response = await api.client.post(PATH, content=text, headers=headers)
    assert response.status_code == 201, response.text
    assert response.json()["amount"] == shown
    assert Decimal(shown) == Decimal(amount.strip('"'))


@pytest.mark.parametrize(
    ("text", "status", "code", "pointer"),
    [
        ('{"amount": 0, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": -1, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": NaN, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": -Infinity, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 1, "currency": NaN, "customer_ref": "C"}', 422, "invalid_request", "#/currency"),
        ('{"amount": "NaN", "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 1e400, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 1e-400, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 0.001, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 10.5, "currency": "JPY", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": 92233720368547758.08, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": %s, "currency": "BRL", "customer_ref": "C"}' % ("9" * 5000), 422, "invalid_amount", "#/amount"),
        ('{"amount": true, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_request", "#/amount"),
        ('{"amount": null, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_request", "#/amount"),
        ('{"amount": [1], "currency": "BRL", "customer_ref": "C"}', 422, "invalid_request", "#/amount"),
        ('{"amount": {}, "currency": "BRL", "customer_ref": "C"}', 422, "invalid_request", "#/amount"),
        ('{"amount": " 100 ", "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"amount": "1e5", "currency": "BRL", "customer_ref": "C"}', 422, "invalid_amount", "#/amount"),
        ('{"currency": "BRL", "customer_ref": "C"}', 422, "invalid_request", "#/amount"),
        ('{"amount": 1, "currency": "XYZ", "customer_ref": "C"}', 422, "unknown_currency", "#/currency"),
        ('{"amount": 1, "currency": "brl", "customer_ref": "C"}', 422, "unknown_currency", "#/currency"),
        ('{"amount": 1, "currency": "XAU", "customer_ref": "C"}', 422, "unknown_currency", "#/currency"),
        ('{"amount": 1, "currency": "", "customer_ref": "C"}', 422, "invalid_request", "#/currency"),
        ('{"amount": 1, "currency": 986, "customer_ref": "C"}', 422, "invalid_request", "#/currency"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": ""}', 422, "invalid_request", "#/customer_ref"),
        (
            '{"amount": 1, "currency": "BRL", "customer_ref": "%s"}' % ("x" * 129),
            422,
            "invalid_request",
            "#/customer_ref",
        ),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "a\\u0000b"}', 422, "invalid_request", "#/customer_ref"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "\\ud800"}', 422, "invalid_request", "#/customer_ref"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "a\\nb"}', 422, "invalid_request", "#/customer_ref"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": 7}', 422, "invalid_request", "#/customer_ref"),
        ('{"amount": 1, "currency": "BRL"}', 422, "invalid_request", "#/customer_ref"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "C", "x": 1}', 422, "invalid_request", "#/x"),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "C", "\\ud800": 1}', 422, "invalid_request", None),
        ('{"amount": 1, "amount": 2, "currency": "BRL", "customer_ref": "C"}', 400, "malformed_json", None),
        ('{"amount": 1, "currency": "BRL", "customer_ref": "C"', 400, "malformed_json", None),
        ("", 422, "invalid_request", None),
        ("[]", 422, "invalid_request", None),
        ('"text"', 422, "invalid_request", None),
        ("[" * 60_000, 400, "malformed_json", None),
        ("[" * 17 + "]" * 17, 400, "malformed_json", None),
        ("[" * 15 + "]" * 15, 422, "invalid_request", None),
        ('{"amount": ' + '{"a":' * 20 + "1" + "}" * 20 + "}", 400, "malformed_json", None),
        ("[" * 100_000, 413, "body_too_large", None),
        (" " * 70_000 + "{}", 413, "body_too_large", None),
        ('{"%s": 1}' % ("x" * 60_000), 422, "invalid_request", "#/" + "x" * 64),
        *(
            (
                f'{{"amount": 1, "currency": "BRL", "customer_ref": "{reference}"}}',
                422,
                "invalid_request",
                "#/customer_ref",
            )
            for reference in ("4111111111111111", "card 4111 1111 1111 1111!", "3782-822463-10005")
        ),
    ],
)
async def test_a_bad_body_is_refused_by_naming_the_field_and_nothing_is_written(
    api: Api, tenant: str, text: str, status: int, code: str, pointer: str | None
) -> None:
    headers = api.headers(tenant) | {"Content-Type": "application/json", "Idempotency-Key": "k"}
    assert_problem(await api.client.post(PATH, content=text, headers=headers), status, code, pointer)
    # The key was not used up, and the next request works.
    assert (await create(api, api.headers(tenant) | {"Idempotency-Key": "k"})).status_code == 201


async def test_a_body_that_is_not_utf8_is_refused(api: Api, tenant: str) -> None:
    headers = api.headers(tenant) | {"Content-Type": "application/json"}
    assert_problem(await api.client.post(PATH, content=b'{"amount": "\xff"}', headers=headers), 400, "malformed_json")


@pytest.mark.parametrize("path", [f"{PATH}/x", f"{PATH}/{{01890a5d-ac96-774b-bcce-b302099a8057}}", f"{PATH}/1"])
@pytest.mark.parametrize("suffix", ["", "/confirm"])
async def test_a_wrong_uuid_is_refused_by_name(api: Api, tenant: str, path: str, suffix: str) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": "k"}
    response = await api.client.request("POST" if suffix else "GET", path + suffix, headers=headers)
    assert_problem(response, 422, "invalid_request", "payment_id")


async def test_an_unknown_intent_and_another_tenants_cannot_be_told_apart(
    api: Api, tenant: str, new_tenant: Any
) -> None:
    other = await new_tenant()
    theirs = (await create(api, api.headers(other))).json()["id"]
    absent = str(uuid4())
    for method, suffix in (("GET", ""), ("POST", "/confirm")):
        answers = []
        for id_ in (theirs, absent):
            headers = api.headers(tenant) | {"Idempotency-Key": "k", "X-Correlation-Id": "c"}
            response = await api.client.request(method, f"{PATH}/{id_}{suffix}", headers=headers)
            assert_problem(response, 404, "payment_not_found")
            answers.append(response.text.replace(id_, "ID"))
        assert answers[0] == answers[1]


async def test_confirming_needs_a_key(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    intent = (await create(api, headers)).json()
    response = await api.client.post(f"{PATH}/{intent['id']}/confirm", headers=headers)
    assert_problem(response, 400, "missing_header")
    assert "Idempotency-Key" in response.json()["detail"]
    read = await api.client.get(f"{PATH}/{intent['id']}", headers=headers)
    assert read.json()["status"] == "CREATED"


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 10_000, "a\tb", "é"])
async def test_a_key_that_is_no_key_is_refused(api: Api, tenant: str, key: str) -> None:
    headers = [*api.headers(tenant).items(), ("Idempotency-Key", key.encode())]
    response = await api.client.post(PATH, json=BODY, headers=headers)  # type: ignore[arg-type]
    assert response.status_code in (400, 422)
    assert "Idempotency-Key" in response.text


async def test_a_header_that_is_sent_twice_is_refused(api: Api, tenant: str) -> None:
    once = list(api.headers(tenant).items())
    for name, value in [*once, ("Idempotency-Key", "k")]:
        response = await api.client.post(PATH, json=BODY, headers=[*once, (name, value), (name, value)])
        assert_problem(response, 400, "repeated_header")


async def test_confirming_again_with_a_new_key_is_a_conflict_and_with_the_same_key_a_replay(
    api: Api, tenant: str
) -> None:
    headers = api.headers(tenant)
    path = f"{PATH}/{(await create(api, headers)).json()['id']}/confirm"
    first = await api.client.post(path, headers=headers | {"Idempotency-Key": "one"})
    assert (first.status_code, first.json()["status"]) == (200, "AUTHORIZED")
    conflict = await api.client.post(path, headers=headers | {"Idempotency-Key": "two"})
    assert_problem(conflict, 409, "already_moved")
    for key, answer in (("one", first), ("two", conflict)):
        replay = await api.client.post(path, headers=headers | {"Idempotency-Key": key})
        assert (replay.status_code, replay.content) == (answer.status_code, answer.content)
        assert replay.headers["Idempotent-Replayed"] == "true"
        assert replay.headers["content-type"] == answer.headers["content-type"]


async def test_a_replay_has_the_first_answers_bytes_and_location(api: Api, tenant: str) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": "k"}
    first = await create(api, headers, amount="5.00")
    for amount in ("5.00", "5.0", "5", 5):
        again = await create(api, headers, amount=amount)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert_problem(await create(api, headers, amount="6.00"), 422, "idempotency_key_reused", "Idempotency-Key")


async def test_a_key_of_another_user_is_another_key(api: Api, tenant: str) -> None:
    key = {"Idempotency-Key": "k"}
    ids = {(await create(api, api.headers(tenant) | key)).json()["id"] for _ in range(3)}
    assert len(ids) == 3


async def test_an_id_in_upper_case_is_the_same_payment_under_a_key(api: Api, tenant: str, database_url: str) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": str(uuid4())}
    payment_id = (await create(api, api.headers(tenant))).json()["id"]
    first = await api.client.post(f"{PATH}/{payment_id.upper()}/confirm", headers=headers)
    assert first.status_code == 200, first.text
    for spelling in (payment_id, payment_id.upper(), payment_id.replace("-", "%2D"), payment_id.title()):
        again = await api.client.post(f"{PATH}/{spelling}/confirm", headers=headers)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
    assert await broken_checks(database_url, tenant) == {}


async def test_fifty_concurrent_creates_with_one_key_make_one_intent(api: Api, tenant: str) -> None:
    headers = api.headers(tenant) | {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(create(api, headers) for _ in range(50)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 49


async def test_two_keys_that_confirm_at_once_authorize_once(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    path = f"{PATH}/{(await create(api, headers)).json()['id']}/confirm"
    answers = await asyncio.gather(
        *(api.client.post(path, headers=headers | {"Idempotency-Key": str(n)}) for n in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("corr-1", True), ("A.b:c_d-9", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False)],
)
async def test_a_well_formed_correlation_id_travels_into_the_event_and_back(
    api: Api, tenant: str, database: Any, sent: str, kept: bool
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = api.headers(tenant) | {"X-Correlation-Id": sent, "traceparent": traceparent}
    response = await create(api, headers)
    returned = response.headers["X-Correlation-Id"]
    assert (returned == sent) is kept
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", returned)
    assert response.headers["traceparent"] == traceparent
    async with database.transaction([tenant]) as conn:
        row = await (await conn.execute("SELECT headers FROM outbox_events")).fetchone()
    assert row == ({"X-Correlation-Id": returned, "X-Tenant-Id": tenant, "traceparent": traceparent},)


@pytest.mark.parametrize(
    "media_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"],
)
async def test_a_body_that_does_not_call_itself_json_is_refused(api: Api, tenant: str, media_type: str | None) -> None:
    headers = api.headers(tenant) | ({} if media_type is None else {"Content-Type": media_type})
    response = await api.client.post(PATH, content=json.dumps(BODY).encode(), headers=headers)
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
async def test_json_by_any_of_its_names_is_read(api: Api, tenant: str, media_type: str) -> None:
    headers = api.headers(tenant) | {"Content-Type": media_type}
    assert (await api.client.post(PATH, content=json.dumps(BODY).encode(), headers=headers)).status_code == 201


async def test_a_body_without_a_length_is_cut_off_when_it_is_too_large(api: Api, tenant: str) -> None:
    sent = 0

    async def too_much() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b" " * 1000

    headers = api.headers(tenant) | {"Content-Type": "application/json"}
    response = await api.client.post(PATH, content=too_much(), headers=headers)
    assert_problem(response, 413, "body_too_large")
    assert sent < 2 * BODY_BYTES_MAX


async def test_a_body_that_does_not_come_is_not_waited_for(
    api: Api, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    monkeypatch.setattr(bodies, "BODY_SECONDS_MAX", 0.1)
    headers = api.headers(tenant) | {"Content-Type": "application/json"}
    assert_problem(await api.client.post(PATH, content=slow(), headers=headers), 408, "body_too_slow")


async def test_a_problem_repeats_little_of_what_it_was_sent(api: Api, tenant: str) -> None:
    many = {f"{'x' * 500}{number}": number for number in range(100)}
    response = await create(api, api.headers(tenant), **many)
    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 8000
    query = "&".join(f"{'x' * 500}{number}=1" for number in range(50))
    response = await api.client.get(f"/v1/ledger/balances?{query}", headers=api.headers(tenant))
    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 8000
    response = await api.client.get(f"{PATH}/{'x' * 5000}", headers=api.headers(tenant))
    assert_problem(response, 422, "invalid_request")
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE payment_intents; --",
        '" OR ""="',
        "%s %(x)s {} {{0}} ${x}",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "../../etc/passwd",
        "{{7*7}}",
        "\u202eabc",
        "Ação ü 你好 🪙",
        "\\x00\\u0000",
        "NULL",
        "{}",
    ],
)
async def test_text_is_only_text_wherever_it_goes(api: Api, tenant: str, text: str) -> None:
    """Into the reference, the key and the correlation id: kept as it is, or refused by name; never carried out."""
    headers = api.headers(tenant)
    response = await create(api, headers, customer_ref=text)
    if response.status_code != 201:
        assert_problem(response, 422, "invalid_request", "#/customer_ref")
    else:
        assert response.json()["customer_ref"] == text
        read = await api.client.get(response.headers["Location"], headers=headers)
        assert read.json()["customer_ref"] == text
    for name in ("Idempotency-Key", "X-Correlation-Id"):
        sent = [*headers.items(), (name, text.encode())]
        answer = await api.client.post(PATH, json=BODY, headers=sent)  # type: ignore[arg-type]
        assert answer.status_code == 201 or answer.json()["code"] == "invalid_header"
    assert_problem(
        await api.client.get(f"/v1/ledger/entries?cursor={quote(text)}&from=x", headers=headers), 422, "invalid_request"
    )


async def test_a_key_that_was_used_elsewhere_is_a_new_key(api: Api, tenant: str, new_tenant: Any) -> None:
    """For another tenant, another user or another path, the same key stands for another request."""
    mine, colleague, other = api.headers(tenant), api.headers(tenant), api.headers(await new_tenant())
    key = {"Idempotency-Key": "k"}
    answers = [await create(api, headers | key) for headers in (mine, colleague, other)]
    assert len({answer.json()["id"] for answer in answers}) == 3
    for answer in (answers[0], answers[1]):
        confirmed = await api.client.post(f"{PATH}/{answer.json()['id']}/confirm", headers=mine | key)
        assert (confirmed.status_code, confirmed.json()["id"]) == (200, answer.json()["id"])
        assert "Idempotent-Replayed" not in confirmed.headers


async def test_a_replay_is_no_way_around_a_revocation(api: Api, tenant: str) -> None:
    admin, headers = api.headers(tenant, role="admin"), api.headers(tenant)
    first = await create(api, headers | {"Idempotency-Key": "k"})
    assert first.status_code == 201
    me = (await api.client.get("/v1/me", headers=headers)).json()["sub"]
    assert (await api.client.post(f"/v1/admin/users/{me}/disable", headers=admin)).is_success
    again = await create(api, headers | {"Idempotency-Key": "k"})
    assert_problem(again, 401)
    assert first.json()["id"] not in again.text
