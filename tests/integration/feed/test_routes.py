"""The feed over HTTP: every event once, in order, from wherever a reader stands, waiting for more if it wants."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from payments_ledger.feed import queries
from payments_ledger.feed.sequencer import extend_log
from payments_ledger.postgres.database import Database, driver_url, transaction_time
from payments_ledger.postgres.roles import relay_role
from payments_ledger.process.periodic import Again
from tests.integration.books import confirm_a_payment, create_a_payment, settle_a_payment
from tests.integration.conftest import Api, opened
from tests.integration.http import assert_problem

pytestmark = pytest.mark.anyio

PATH = "/v1/events"


@pytest.fixture
async def extend(database_url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as outbox:

        async def to_the_end() -> None:
            while await extend_log(outbox) is Again.AT_ONCE:
                pass

        yield to_the_end


type Extend = Callable[[], Awaitable[None]]


async def read(api: Api, headers: dict[str, str], query: str = "") -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    following: str | None = f"{PATH}?{query}"
    while following:
        response = await api.client.get(following, headers=headers)
        assert response.status_code == 200, response.text
        found += response.json()
        following = response.links.get("next", {}).get("url")
    return found


async def test_events_are_read_in_pages_oldest_first_and_one_by_one(
    api: Api, database: Database, tenant: str, extend: Extend
) -> None:
    headers = api.headers(tenant)
    payments = [await settle_a_payment(database, tenant) for _ in range(3)]
    await extend()
    events = await read(api, headers, "limit=2")
    assert [(event["position"], event["aggregate_id"], event["sequence"]) for event in events] == [
        (3 * number + sequence, str(payment.id), sequence)
        for number, payment in enumerate(payments)
        for sequence in (1, 2, 3)
    ]
    first = events[0]
    assert first["type"] == "payment.intent.created"
    assert (first["data"]["payment_intent_id"], first["data"]["status"]) == (str(payments[0].id), "CREATED")
    assert (first["correlation_id"], first["occurred_at"]) == ("corr-test", first["data"]["occurred_at"])
    assert (await api.client.get(f"{PATH}/{first['id']}", headers=headers)).json() == first
    assert await read(api, headers, f"after={events[4]['id']}") == events[5:]
    assert await read(api, headers, f"after={events[-1]['id']}") == []


async def test_only_what_is_wanted_is_read(
    api: Api, database: Database, tenant: str, extend: Extend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LOOKED_AT_MAX", 4)
    headers = api.headers(tenant)
    one, two = [await settle_a_payment(database, tenant) for _ in range(2)]
    await extend()
    everything = await read(api, headers)
    assert len(everything) == 6
    assert await read(api, headers, "types=payment.settled") == [everything[2], everything[5]]
    assert await read(api, headers, "types=payment.intent.*&types=payment.settled") == [
        everything[number] for number in (0, 2, 3, 5)
    ]
    assert await read(api, headers, "types=*") == everything
    assert await read(api, headers, f"aggregate_id={two.id}&limit=2") == everything[3:]
    assert await read(api, headers, f"aggregate_id={one.id}&types=payment.authorized") == [everything[1]]
    assert await read(api, headers, "types=ledger.*") == []


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("types=payment", "types"),
        ("types=payment*", "types"),
        ("types=", "types"),
        ("&".join(["types=*"] * 51), "types"),
        ("wait=21", "wait"),
        ("wait=-1", "wait"),
        ("wait=soon", "wait"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("after=nonsense", "after"),
        ("aggregate_id=1", "aggregate_id"),
        ("cursor=x", "cursor"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(api: Api, tenant: str, query: str, place: str) -> None:
    assert_problem(await api.client.get(f"{PATH}?{query}", headers=api.headers(tenant)), 422, place=place)


async def test_an_unknown_event_is_no_place_to_read_on_from(
    api: Api, database: Database, tenant: str, extend: Extend, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    headers = api.headers(tenant)
    await settle_a_payment(database, tenant)
    other = await new_tenant()
    await settle_a_payment(database, other)
    await extend()
    [theirs, *_] = await read(api, api.headers(other))
    for unknown in (uuid4(), theirs["id"]):
        assert_problem(await api.client.get(f"{PATH}?after={unknown}", headers=headers), 400, "unknown_event", "after")
        assert_problem(await api.client.get(f"{PATH}/{unknown}", headers=headers), 404, "event_not_found")
    assert_problem(await api.client.get(PATH, headers=api.headers(tenant, role="sales")), 403, "permission_denied")


async def test_what_retention_has_removed_is_gone_and_says_where_to_go_on(
    api: Api, database: Database, database_url: str, tenant: str, extend: Extend
) -> None:
    headers = api.headers(tenant)
    old, kept = [await settle_a_payment(database, tenant) for _ in range(2)]
    await extend()
    events = await read(api, headers)
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM outbox_events WHERE aggregate_id = %s", [old.id])
    async with (
        opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as outbox,
        outbox.transaction() as conn,
    ):
        await queries.delete_expired(conn, await transaction_time(conn), 1000)
    response = await api.client.get(f"{PATH}?after={events[0]['id']}", headers=headers)
    assert_problem(response, 410, "cursor_expired")
    assert "position 4" in response.json()["detail"]
    assert await read(api, headers) == events[3:]
    assert {event["aggregate_id"] for event in events[3:]} == {str(kept.id)}


async def test_a_long_poll_gets_what_comes_and_nothing_after_its_time(
    api: Api, database: Database, tenant: str, extend: Extend
) -> None:
    headers = api.headers(tenant)
    payment = await create_a_payment(database, tenant)
    await extend()
    [created] = await read(api, headers)

    async def poll(seconds: int, types: str = "*") -> list[dict[str, Any]]:
        query = f"after={created['id']}&wait={seconds}&types={types}"
        response = await api.client.get(f"{PATH}?{query}", headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        events: list[dict[str, Any]] = response.json()
        return events

    began = time.monotonic()
    assert await poll(1) == []
    assert time.monotonic() - began >= 1
    # One waits for what comes first, one for what comes later, and none of them is held up by the other.
    polls = [asyncio.create_task(poll(20)), asyncio.create_task(poll(20, "payment.settled"))]
    await asyncio.sleep(0.3)
    await confirm_a_payment(database, payment)
    await extend()
    assert [event["type"] for event in await polls[0]] == ["payment.authorized"]
    await asyncio.sleep(0.5)
    assert not polls[1].done()
    await settle_a_payment(database, tenant)
    await extend()
    assert [event["type"] for event in await polls[1]] == ["payment.settled"]


async def test_an_event_without_a_position_yet_is_a_place_to_wait_at(
    api: Api, database: Database, tenant: str, extend: Extend
) -> None:
    headers = api.headers(tenant)
    await create_a_payment(database, tenant)
    async with database.transaction([tenant]) as conn:
        [(event_id,)] = await (await conn.execute("SELECT id FROM outbox_events")).fetchall()
    response = await api.client.get(f"{PATH}?after={event_id}", headers=headers)
    assert (response.status_code, response.json()) == (200, [])
    await extend()
    assert [event["id"] for event in await read(api, headers)] == [str(event_id)]
