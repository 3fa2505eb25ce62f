"""Requests that take a payment through its life, each under a key of its own, and the worker's part in between."""

from typing import Any
from uuid import UUID, uuid4

import httpx

from payments_ledger.errors import Rejected
from payments_ledger.payments.use_cases import SettlePayment, settle_payments
from payments_ledger.postgres.database import Database
from tests.integration.books import ORIGIN
from tests.integration.conftest import Api
from tests.integration.http import PATH, create


async def post(
    api: Api, headers: dict[str, str], path: str, body: Any = None, key: str | None = None
) -> httpx.Response:
    """Without a body if it is None."""
    keyed = headers | {"Idempotency-Key": key or str(uuid4())}
    if body is None:
        return await api.client.post(path, headers=keyed)
    return await api.client.post(path, json=body, headers=keyed)


async def act(
    api: Api, headers: dict[str, str], payment_id: str, action: str, body: Any = None, key: str | None = None
) -> httpx.Response:
    """Confirms, captures, cancels, fails or refunds."""
    return await post(api, headers, f"{PATH}/{payment_id}/{action}", body, key)


async def created(api: Api, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    response = await create(api, headers, **body)
    assert response.status_code == 201, response.text
    payment: dict[str, Any] = response.json()
    return payment


async def authorized(api: Api, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    payment = await created(api, headers, **body)
    response = await act(api, headers, payment["id"], "confirm")
    assert response.status_code == 200, response.text
    confirmed: dict[str, Any] = response.json()
    return confirmed


async def settle(database: Database, tenant: str, payment_id: str) -> None:
    """What the worker does when it is told of an authorization or a capture."""
    async with database.transaction([tenant]) as conn:
        [outcome] = await settle_payments(conn, [SettlePayment(tenant, UUID(payment_id), ORIGIN)])
    assert not isinstance(outcome, Rejected)


async def settled(api: Api, database: Database, tenant: str, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    payment = await authorized(api, headers, **body)
    await settle(database, tenant, payment["id"])
    return await read(api, headers, payment["id"])


async def read(api: Api, headers: dict[str, str], payment_id: str) -> dict[str, Any]:
    response = await api.client.get(f"{PATH}/{payment_id}", headers=headers)
    assert response.status_code == 200, response.text
    payment: dict[str, Any] = response.json()
    return payment


async def events_of(database: Database, tenant: str, payment_id: str) -> list[dict[str, Any]]:
    """The bodies of the payment's events in their order, each with its `type`."""
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            "SELECT event_type, sequence, payload FROM outbox_events WHERE aggregate_id = %s ORDER BY sequence",
            [UUID(payment_id)],
        )
        rows = await cursor.fetchall()
    assert [sequence for _, sequence, _ in rows] == list(range(1, len(rows) + 1))
    return [{"type": event_type, **payload} for event_type, _, payload in rows]
