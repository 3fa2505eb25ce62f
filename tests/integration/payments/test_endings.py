"""Payments that end without money: cancelled, failed, expired; and who comes too late."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.payments.expiry import sweep_expired
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role
from tests.integration.books import broken_checks
from tests.integration.conftest import Api, opened
from tests.integration.http import PATH, assert_problem, create
from tests.integration.payments.lifecycle_requests import act, authorized, created, events_of, post, read, settled

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("reason", [None, "requested_by_customer", "duplicate", "fraudulent", "abandoned"])
async def test_a_payment_is_cancelled_for_a_reason_or_none(
    api: Api, database: Database, database_url: str, tenant: str, reason: str | None
) -> None:
    headers = api.headers(tenant)
    for payment in (await created(api, headers), await authorized(api, headers)):
        response = await act(api, headers, payment["id"], "cancel", {"reason": reason} if reason else None)
        assert (response.status_code, response.json()["status"]) == (200, "CANCELLED")
        assert response.json()["cancellation_reason"] == reason
        told = (await events_of(database, tenant, payment["id"]))[-1]
        assert (told["type"], told["cancellation_reason"]) == ("payment.cancelled", reason)
    assert await broken_checks(database_url, tenant) == {}


async def test_a_payment_fails_with_a_code_and_maybe_a_message(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    for body in ({"failure_code": "card_declined"}, {"failure_code": "f" * 64, "failure_message": "Recusado."}):
        payment = await authorized(api, headers)
        failed = (await act(api, headers, payment["id"], "fail", body)).json()
        shown = {name: failed[name] for name in ("failure_code", "failure_message")}
        assert (failed["status"], shown) == ("FAILED", {"failure_message": None, **body})
        told = (await events_of(database, tenant, payment["id"]))[-1]
        assert (told["type"], told["failure_code"]) == ("payment.failed", body["failure_code"])
    assert await broken_checks(database_url, tenant) == {}


@pytest.mark.parametrize(
    ("action", "body", "place"),
    [
        ("cancel", {"reason": "expired"}, "#/reason"),
        ("cancel", {"reason": "order_cancelled"}, "#/reason"),
        ("cancel", {"reason": ""}, "#/reason"),
        ("cancel", {"why": "x"}, "#/why"),
        ("fail", None, "#"),
        ("fail", {}, "#/failure_code"),
        ("fail", {"failure_code": ""}, "#/failure_code"),
        ("fail", {"failure_code": "Declined"}, "#/failure_code"),
        ("fail", {"failure_code": "f" * 65}, "#/failure_code"),
        ("fail", {"failure_code": "declined", "failure_message": "m" * 501}, "#/failure_message"),
        ("fail", {"failure_code": "declined", "failure_message": "4111 1111 1111 1111"}, "#/failure_message"),
    ],
)
async def test_what_is_wrong_with_an_ending_is_named_and_nothing_ends(
    api: Api, tenant: str, action: str, body: object, place: str
) -> None:
    headers = api.headers(tenant)
    payment = await created(api, headers)
    response = await act(api, headers, payment["id"], action, body)
    assert response.status_code in (415, 422)
    if response.status_code == 422:
        assert_problem(response, 422, place=place)
    assert await read(api, headers, payment["id"]) == payment


@pytest.mark.parametrize(("action", "body"), [("cancel", None), ("fail", {"failure_code": "x"})])
async def test_what_has_ended_or_was_captured_does_not_end_again(
    api: Api, database: Database, tenant: str, action: str, body: object
) -> None:
    headers = api.headers(tenant)
    cancelled, failed = await created(api, headers), await created(api, headers)
    await act(api, headers, cancelled["id"], "cancel")
    await act(api, headers, failed["id"], "fail", {"failure_code": "x"})
    done = await settled(api, database, tenant, headers)
    captured = await authorized(api, headers, capture_method="manual")
    await act(api, headers, captured["id"], "capture")
    for payment, code in (
        (cancelled, "illegal_move"),
        (failed, "illegal_move"),
        (done, "illegal_move"),
        (captured, "already_captured"),
    ):
        assert_problem(await act(api, headers, payment["id"], action, body), 409, code)
    path = f"{PATH}/{done['id']}/{action}"
    assert_problem(await api.client.post(path, json=body or {}, headers=headers), 400, "missing_header")


async def sweep(database: Database, database_url: str) -> None:
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as outbox:
        commands = GroupCommit(database.transaction)
        await sweep_expired(outbox, commands)
        await commands.drain()


def soon(seconds: float = 0.15) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_from_its_expiry_on_a_payment_moves_no_further_swept_or_not(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    unconfirmed = await created(api, headers, expires_at=soon(0.5))
    waiting = await authorized(api, headers, expires_at=soon(0.5), capture_method="manual")
    await asyncio.sleep(0.55)
    assert (await read(api, headers, waiting["id"]))["amount_capturable"] == "0.00"
    for _ in ("before the sweep", "after it"):
        for payment in (unconfirmed, waiting):
            for action in ("confirm", "capture", "cancel"):
                assert_problem(await act(api, headers, payment["id"], action), 409, "payment_expired")
            failure = {"failure_code": "x"}
            assert_problem(await act(api, headers, payment["id"], "fail", failure), 409, "payment_expired")
        await sweep(database, database_url)
    for payment in (unconfirmed, waiting):
        after = await read(api, headers, payment["id"])
        assert (after["status"], after["cancellation_reason"]) == ("CANCELLED", "expired")
        told = (await events_of(database, tenant, payment["id"]))[-1]
        assert (told["type"], told["cancellation_reason"]) == ("payment.cancelled", "expired")
    async with database.transaction([tenant]) as conn:
        assert await (await conn.execute("SELECT FROM payment_expiries")).fetchall() == []
    assert await broken_checks(database_url, tenant) == {}


async def test_what_was_confirmed_or_captured_in_time_does_not_expire(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    confirmed = await authorized(api, headers, expires_at=soon(0.4))
    captured = await authorized(api, headers, expires_at=soon(0.4), capture_method="manual")
    await act(api, headers, captured["id"], "capture")
    await asyncio.sleep(0.45)
    await sweep(database, database_url)
    for payment in (confirmed, captured):
        assert (await read(api, headers, payment["id"]))["status"] == "AUTHORIZED"


async def test_of_captures_and_expiries_at_once_one_wins(
    api: Api, database: Database, database_url: str, tenant: str
) -> None:
    headers = api.headers(tenant)
    at = soon(2)
    payments = [await authorized(api, headers, expires_at=at, capture_method="manual") for _ in range(8)]
    await asyncio.sleep(max(0.0, (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds() - 0.02))
    captures = asyncio.gather(*(act(api, headers, payment["id"], "capture") for payment in payments))
    for _ in range(10):
        await sweep(database, database_url)
    outcomes = {response.status_code for response in await captures}
    await sweep(database, database_url)
    assert outcomes <= {200, 409}
    for payment in payments:
        after = await read(api, headers, payment["id"])
        assert (after["status"] == "CANCELLED") == (after["amount_captured"] == "0.00")
        assert len(await events_of(database, tenant, payment["id"])) == 3


@pytest.mark.parametrize(
    "expires_at",
    ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "tomorrow", "", 1893456000, True, "2026-13-01", ["2027-01-01"]],
)
async def test_an_expiry_that_is_none_is_refused_and_nothing_is_created(
    api: Api, database: Database, tenant: str, expires_at: object
) -> None:
    response = await create(api, api.headers(tenant), expires_at=expires_at)
    assert_problem(response, 422, place="#/expires_at")
    async with database.transaction([tenant]) as conn:
        assert await (await conn.execute("SELECT FROM payment_intents")).fetchall() == []


async def test_a_repetition_after_the_expiry_gets_the_first_response(api: Api, tenant: str) -> None:
    headers = api.headers(tenant)
    body = {"amount": 1, "currency": "BRL", "customer_ref": "C", "expires_at": soon(0.3)}
    first = await post(api, headers, PATH, body, key="k")
    assert first.status_code == 201
    await asyncio.sleep(0.35)
    again = await post(api, headers, PATH, body, key="k")
    assert (again.status_code, again.content) == (201, first.content)


async def test_an_order_is_not_named_over_http(api: Api, tenant: str) -> None:
    assert_problem(await create(api, api.headers(tenant), order_id="o-1"), 422, place="#/order_id")


async def test_the_expiry_of_a_payment_can_be_found_by_nobody_else(
    api: Api, database: Database, tenant: str, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    payment = await created(api, api.headers(tenant), expires_at=soon(60))
    async with database.transaction([await new_tenant()]) as conn:
        cursor = await conn.execute("SELECT FROM payment_expiries WHERE payment_id = %s", [UUID(payment["id"])])
        assert await cursor.fetchall() == []
