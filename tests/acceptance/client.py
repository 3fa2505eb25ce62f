"""A client that pays as the README shows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx

from tests.acceptance.conftest import Engine

TENANT = "tenant_demo"


@contextmanager
def logged_in(engine: Engine, email: str = "ops@demo", password: str = "ops123") -> Iterator[httpx.Client]:
    """A client that has logged in as the README shows it, once the API is ready."""
    engine.wait_until_ready()
    with httpx.Client(base_url=engine.base_url, timeout=10) as client:
        credentials = {"email": email, "password": password, "tenantId": TENANT}
        token = client.post("/v1/auth/token", json=credentials).raise_for_status().json()["access_token"]
        client.headers.update({"Authorization": f"Bearer {token}", "X-Tenant-Id": TENANT})
        yield client


def create(client: httpx.Client, reference: str = "CUST-001", key: str | None = None) -> httpx.Response:
    text = f'{{"amount": 100.00, "currency": "BRL", "customer_ref": "{reference}"}}'
    headers = {"Idempotency-Key": key or str(uuid4()), "Content-Type": "application/json"}
    return client.post("/v1/payment-intents", content=text, headers=headers)


def confirm(client: httpx.Client, payment_id: str) -> httpx.Response:
    return client.post(f"/v1/payment-intents/{payment_id}/confirm", headers={"Idempotency-Key": f"confirm-{uuid4()}"})


def settled(client: httpx.Client, payment_id: str) -> bool:
    return bool(client.get(f"/v1/payment-intents/{payment_id}").json()["status"] == "SETTLED")
