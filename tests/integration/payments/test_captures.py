"""Manual payments over HTTP: authorized, captured in whole or in part, settled with what was captured."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from payments_ledger.errors import IllegalMove, Rejected
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.postgres.database import Database
from tests.integration.books import ORIGIN, broken_checks
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


async def test_a_part_is_captured_settled_and_the_rest_released(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    assert (payment["status"], payment["amount_capturable"]) == ("AUTHORIZED", "100.00")
    captured = (await act(api, headers, payment["id"], "capture", {"amount": "80.50"})).json()
    assert (captured["status"], captured["amount"]) == ("AUTHORIZED", "100.00")
    assert (captured["amount_captured"], captured["amount_capturable"]) == ("80.50", "0.00")
    assert captured["capture_requested_at"] == captured["updated_at"]
    await settle(database, tenant, payment["id"])
    done = await read(api, headers, payment["id"])
    assert (done["status"], done["amount_captured"], done["amount_refundable"]) == ("SETTLED", "80.50", "80.50")

    [_, _, requested, told] = await events_of(database, tenant, payment["id"])
    assert requested["type"] == "payment.capture_requested"
    assert (requested["amount"], requested["amount_captured"], requested["amount_released"]) == (
        "100.00",
        "80.50",
        "19.50",
    )
    assert (told["type"], told["amount"], told["amount_authorized"]) == ("payment.settled", "80.50", "100.00")
    entries = (await api.client.get("/v1/ledger/entries", headers=headers)).json()
    assert [(entry["payment_intent_id"], entry["lines"][0]["amount"]) for entry in entries] == [
        (payment["id"], "80.50")
    ]
    assert await broken_checks(database_url, tenant) == {}


@pytest.mark.parametrize("body", [None, {}, {"amount": None}, {"amount": 100}, {"amount": "100.000"}])
async def test_all_of_it_is_captured_unless_somebody_says_otherwise(api: Api, tenant: str, body: object) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    response = await act(api, headers, payment["id"], "capture", body)
    assert (response.status_code, response.json()["amount_captured"]) == (200, "100.00")


async def test_nothing_settles_what_waits_for_its_capture(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    payment = await authorized(api, api.headers(tenant), capture_method="manual")
    async with database.transaction([tenant]) as conn:
        [outcome] = await settle_payments(conn, [SettlePayment(tenant, UUID(payment["id"]), ORIGIN)])
    assert isinstance(outcome, Rejected)
    assert isinstance(outcome.error, IllegalMove)
    # It waits for a person, however long that takes.
    assert await broken_checks(database_url, tenant, authorized_seconds_max=0) == {}


async def test_a_capture_that_nobody_settles_is_found(api: Api, database_url: str, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    await act(api, headers, payment["id"], "capture")
    assert set(await broken_checks(database_url, tenant, authorized_seconds_max=0)) == {"nothing_waits_too_long"}


async def test_what_cannot_be_captured_is_told_why(api: Api, database: Database, tenant: str) -> None:
    headers = api.headers(tenant)
    automatic = await authorized(api, headers)
    unconfirmed = await created(api, headers, capture_method="manual")
    waiting = await authorized(api, headers, capture_method="manual")
    done = await authorized(api, headers, capture_method="manual")
    await act(api, headers, done["id"], "capture", {"amount": 1})
    cases = (
        (automatic, None, 409, "not_capturable"),
        (unconfirmed, None, 409, "not_capturable"),
        (waiting, {"amount": "100.01"}, 409, "amount_exceeds_authorized"),
        (waiting, {"amount": "92233720368547758.07"}, 409, "amount_exceeds_authorized"),
        (done, None, 409, "already_captured"),
    )
    for payment, body, status, code in cases:
        assert_problem(await act(api, headers, payment["id"], "capture", body), status, code)
    await settle(database, tenant, done["id"])
    assert_problem(await act(api, headers, done["id"], "capture"), 409, "already_captured")
    assert len(await events_of(database, tenant, waiting["id"])) == 2


@pytest.mark.parametrize(
    "amount", [0, -1, "-1.00", "0.00", "1e2", "ten", "", True, [], "0.001", 0.001, "9" * 40, "NaN", {"value": 1}]
)
async def test_an_amount_that_is_none_is_refused_and_nothing_is_captured(
    api: Api, database: Database, tenant: str, amount: object
) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    response = await act(api, headers, payment["id"], "capture", {"amount": amount})
    assert_problem(response, 422, place="#/amount")
    assert (await read(api, headers, payment["id"])) == payment


async def test_a_capture_needs_its_key_and_takes_no_other_member(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    path = f"{PATH}/{payment['id']}/capture"
    assert_problem(await api.client.post(path, headers=headers), 400, "missing_header", "Idempotency-Key")
    assert_problem(await post(api, headers, path, {"currency": "BRL"}), 422, place="#/currency")
    assert_problem(await post(api, headers, path, []), 422, place="#")


async def test_a_repeated_capture_gets_the_first_response_however_its_amount_is_spelled(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await authorized(api, headers, capture_method="manual")
    first = await act(api, headers, payment["id"], "capture", {"amount": "10.50"}, key="k")
    again = await act(api, headers, payment["id"], "capture", {"amount": 10.5}, key="k")
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert_problem(
        await act(api, headers, payment["id"], "capture", {"amount": 10}, key="k"), 422, "idempotency_key_reused"
    )
    refused = await act(api, headers, payment["id"], "capture", key="other")
    assert (await act(api, headers, payment["id"], "capture", key="other")).content == refused.content


async def test_of_captures_and_cancellations_at_once_one_wins(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    payments = [await authorized(api, headers, capture_method="manual") for _ in range(10)]
    responses = await asyncio.gather(
        *(act(api, headers, payment["id"], action) for payment in payments for action in ("capture", "cancel"))
    )
    for payment, capture, cancel in zip(payments, responses[::2], responses[1::2], strict=True):
        assert sorted((capture.status_code, cancel.status_code)) == [200, 409]
        after = await read(api, headers, payment["id"])
        assert after["status"] == ("AUTHORIZED" if capture.status_code == 200 else "CANCELLED")
        assert len(await events_of(database, tenant, payment["id"])) == 3
    assert await broken_checks(database_url, tenant) == {}


async def test_an_automatic_payment_shows_what_was_settled(api: Api, database: Database, tenant: str) -> None:
    headers = api.headers(tenant)
    payment = await settled(api, database, tenant, headers)
    assert (payment["capture_method"], payment["amount_captured"], payment["amount_refundable"]) == (
        "automatic",
        "100.00",
        "100.00",
    )
    assert payment["capture_requested_at"] is None


async def test_a_manual_payment_of_many_is_created_with_its_terms(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    items = [
        {"amount": 1, "currency": "BRL", "customer_ref": "C", "capture_method": "manual", "metadata": {"seat": "7"}},
        {"amount": 1, "currency": "BRL", "customer_ref": "C", "expires_at": expires_at, "description": "Two tickets"},
        {"amount": 1, "currency": "BRL", "customer_ref": "C", "expires_at": "2020-01-01"},
        {"amount": 1, "currency": "BRL", "customer_ref": "C", "capture_method": "none"},
    ]
    response = await post(api, headers, f"{PATH}/batch", {"payment_intents": items})
    manual, expiring, late, unknown = response.json()["outcomes"]
    assert (manual["payment_intent"]["capture_method"], manual["payment_intent"]["metadata"]) == (
        "manual",
        {"seat": "7"},
    )
    assert expiring["payment_intent"]["description"] == "Two tickets"
    assert datetime.fromisoformat(expiring["payment_intent"]["expires_at"]) == datetime.fromisoformat(expires_at)
    assert late["problem"]["errors"][0]["pointer"] == "#/payment_intents/2/expires_at"
    assert unknown["problem"]["errors"][0]["pointer"] == "#/payment_intents/3/capture_method"
