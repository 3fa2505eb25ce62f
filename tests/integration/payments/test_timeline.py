"""The timeline of a payment tells all that happened to it, in order, and who did it."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.commit.audit import Origin
from payments_ledger.payments.payment import CancellationReason
from payments_ledger.payments.timeline import Place
from payments_ledger.payments.use_cases import CancelPayment, cancel_payments
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role
from payments_ledger.telemetry.tracing import Trace
from tests.integration.conftest import Api, opened
from tests.integration.http import PATH, assert_problem
from tests.integration.payments.lifecycle_requests import act, authorized, created, read, settle

pytestmark = pytest.mark.anyio


@pytest.fixture
def headers(api: Api, tenant: str) -> dict[str, str]:
    return api.headers(tenant, role="admin")


async def timeline(api: Api, headers: dict[str, str], payment_id: str, query: str = "") -> list[dict[str, Any]]:
    """The lines of all pages."""
    lines: list[dict[str, Any]] = []
    following: str | None = f"{PATH}/{payment_id}/timeline{query}"
    while following:
        response = await api.client.get(following, headers=headers)
        assert response.status_code == 200, response.text
        lines += response.json()
        following = response.links.get("next", {}).get("url")
    return lines


async def publish_all(database_url: str, tenant: str, payment_id: str) -> None:
    """What the relay does, in the order of the events, two of them at once."""
    async with (
        opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as relay,
        relay.transaction([tenant]) as conn,
    ):
        await conn.execute(
            """
            UPDATE outbox_events SET published_at = now() + sequence / 2 * interval '1 millisecond'
            WHERE tenant_id = %s AND aggregate_id = %s
            """,
            [tenant, UUID(payment_id)],
        )


async def refunded_payment(
    api: Api, database: Database, database_url: str, tenant: str, headers: dict[str, str]
) -> dict[str, Any]:
    """Authorized manually, captured in part, settled, and refunded twice; all events are published."""
    payment = await authorized(api, headers, capture_method="manual")
    await act(api, headers, payment["id"], "capture", {"amount": "80.50"})
    await settle(database, tenant, payment["id"])
    await act(api, headers, payment["id"], "refunds", {"amount": 30, "reference": "R-1"})
    await act(api, headers, payment["id"], "refunds")
    await publish_all(database_url, tenant, payment["id"])
    return await read(api, headers, payment["id"])


async def test_a_payments_whole_life_is_told_in_order(
    api: Api, database: Database, database_url: str, tenant: str, headers: dict[str, str]
) -> None:
    payment = await refunded_payment(api, database, database_url, tenant, headers)
    lines = await timeline(api, headers, payment["id"])
    assert [set(line) for line in lines] == [{"at", "type", "by", "correlation_id", "detail"}] * len(lines)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    facts = [line["type"] for line in lines if line["type"] != "event.published"]
    assert facts == [
        "payment.intent.created",
        "payment.authorized",
        "payment.capture_requested",
        "payment.settled",
        "ledger.entry",
        "payment.refunded",
        "ledger.entry",
        "payment.refunded",
        "ledger.entry",
    ]
    refunds = (await api.client.get(f"{PATH}/{payment['id']}/refunds", headers=headers)).json()[::-1]
    by_type = {kind: [line for line in lines if line["type"] == kind] for kind in {line["type"] for line in lines}}
    [capture], [settlement] = by_type["payment.capture_requested"], by_type["payment.settled"]
    assert capture["detail"] == {
        "status": "AUTHORIZED",
        "amount": "100.00",
        "currency": "BRL",
        "capture_id": capture["detail"]["capture_id"],
        "amount_captured": "80.50",
        "amount_released": "19.50",
    }
    assert settlement["detail"]["status"] == "SETTLED"
    refund_details = [line["detail"] for line in by_type["payment.refunded"]]
    assert [(told["refund_id"], told["refund_amount"], told["reference"]) for told in refund_details] == [
        (refund["id"], refund["amount"], refund["reference"]) for refund in refunds
    ]
    entries = (await api.client.get("/v1/ledger/entries", headers=headers)).json()
    assert [line["detail"]["entry_id"] for line in by_type["ledger.entry"]] == [entry["id"] for entry in entries[::-1]]
    assert [line["detail"]["source_id"] for line in by_type["ledger.entry"]] == [
        capture["detail"]["capture_id"],
        *(refund["id"] for refund in refunds),
    ]
    published = by_type["event.published"]
    assert [line["detail"]["event_type"] for line in published] == [
        kind for kind in facts if kind.startswith("payment.")
    ]
    created_id = by_type["payment.intent.created"][0]["detail"]["event_id"]
    assert created_id == published[0]["detail"]["event_id"]
    # Each line belongs to the request that it came from, and says who made that.
    assert published[2]["correlation_id"] == capture["correlation_id"]
    me = (await api.client.get("/v1/me", headers=headers)).json()["sub"]
    assert {line["by"] for line in by_type["payment.refunded"]} == {me}
    assert [line["by"] for line in by_type["ledger.entry"]] == ["tester", me, me]
    assert {line["by"] for line in published} == {"worker"}


async def test_pages_of_a_timeline_neither_repeat_nor_omit(
    api: Api, database: Database, database_url: str, tenant: str, headers: dict[str, str]
) -> None:
    payment = await refunded_payment(api, database, database_url, tenant, headers)
    lines = await timeline(api, headers, payment["id"])
    for limit in (1, 2, 7, 200):
        assert await timeline(api, headers, payment["id"], f"?limit={limit}") == lines


@pytest.mark.parametrize("action", ["cancel", "fail"])
async def test_a_payment_that_was_given_up_says_why_and_for_whom(
    api: Api, database: Database, tenant: str, headers: dict[str, str], action: str
) -> None:
    payment = await created(api, headers)
    if action == "fail":
        await act(api, headers, payment["id"], "fail", {"failure_code": "declined"})
        by, kept = (await api.client.get("/v1/me", headers=headers)).json()["sub"], {"failure_code": "declined"}
    else:
        by, kept = "orders", {"cancellation_reason": "order_cancelled"}
        command = CancelPayment(
            tenant, UUID(payment["id"]), CancellationReason.ORDER_CANCELLED, Origin(by, None, Trace("corr-order"))
        )
        async with database.transaction([tenant]) as conn:
            await cancel_payments(conn, [command])
    await act(api, headers, payment["id"], "confirm")
    await api.client.patch(f"{PATH}/{payment['id']}", json={"description": "x"}, headers=headers)
    first, last = await timeline(api, headers, payment["id"])
    assert (first["type"], last["by"]) == ("payment.intent.created", by)
    assert last["detail"].items() >= kept.items()


async def test_what_is_not_there_or_of_another_tenant_has_no_timeline(
    api: Api, tenant: str, headers: dict[str, str], new_tenant: Any
) -> None:
    payment = await created(api, headers)
    path = f"{PATH}/{payment['id']}/timeline"
    stranger = api.headers(await new_tenant())
    assert_problem(await api.client.get(path, headers=stranger), 404, "payment_not_found")
    assert_problem(await api.client.get(f"{PATH}/x/timeline", headers=headers), 422, place="payment_id")
    assert_problem(await api.client.get(f"{path}?order=asc", headers=headers), 422, place="order")
    await act(api, headers, payment["id"], "confirm")
    page = await api.client.get(f"{path}?limit=1", headers=headers)
    other = await created(api, headers)
    cursor = page.links["next"]["url"].partition("cursor=")[2]
    assert (await api.client.get(f"{path}?cursor={cursor}", headers=headers)).status_code == 200
    assert_problem(
        await api.client.get(f"{PATH}/{other['id']}/timeline?cursor={cursor}", headers=headers), 400, "invalid_cursor"
    )


@given(st.builds(Place, st.datetimes(timezones=st.just(UTC)), st.integers(0, 9), st.uuids()))
def test_a_place_is_read_back_exactly(place: Place) -> None:
    assert Place.read(str(place)) == place
    assert isinstance(place.at, datetime)
