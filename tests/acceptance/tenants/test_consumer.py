"""The service that keeps the tenants, as it really publishes, and our worker, on a real broker."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange

from payments_ledger.process.settings import Settings
from payments_ledger.rabbitmq.connection import connected
from tests.acceptance.conftest import Engine
from tests.acceptance.operations import drop_dead_letters, list_dead_letters
from tests.acceptance.worker_here import ask, dead_letters_are, eventually, settings_of, worker_in_this_process

pytestmark = pytest.mark.anyio

# As .env.example has them.
EXCHANGE = "saas.events"
KEYS = "saas.*.tenant.created,saas.*.tenant.updated,saas.*.tenant.deleted"


@pytest.fixture
def settings(engine: Engine) -> Settings:
    """Its queue is its own: others would bring it what they publish."""
    return settings_of(
        engine,
        tenants_sync_enabled=True,
        tenants_exchange=EXCHANGE,
        tenants_routing_keys=KEYS,
        tenants_queue=f"saas.{uuid4().hex}.events",
    )


def envelope(tenant_id: str, what: str, **changes: Any) -> bytes:
    """The message as it really comes."""
    body = {
        "id": str(uuid4()),
        "aggregateType": "tenant",
        "aggregateId": tenant_id,
        "eventType": f"tenant.{what}",
        "payload": {"name": "Acme", "plan": "pro", "region": "region-a"},
    }
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...}).encode()


@asynccontextmanager
async def exchange_of(settings: Settings) -> AsyncIterator[AbstractExchange]:
    """As its owner declares it; no queue of an earlier test is bound to it."""
    async with connected(settings.rabbitmq_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        yield await channel.declare_exchange(settings.tenants_exchange, "topic", durable=True)
        await (await channel.get_queue(settings.tenants_queue)).delete(if_unused=False, if_empty=False)


async def publish(exchange: AbstractExchange, key: str, body: bytes) -> None:
    """As soon as the worker has bound its queue."""
    async with asyncio.timeout(30):
        while True:
            try:
                await exchange.publish(aio_pika.Message(body), key, mandatory=True)
            except aio_pika.exceptions.PublishError:
                await asyncio.sleep(0.05)
            else:
                return


def tenant_row(engine: Engine, tenant_id: str) -> list[tuple[Any, ...]]:
    row = "SELECT name, plan, region, suspended_at IS NOT NULL FROM tenants WHERE tenant_id = %s"
    return ask(engine, row, tenant_id, tenant=tenant_id)


async def test_a_tenant_is_made_changed_and_suspended_as_its_real_publisher_tells_it(
    engine: Engine, settings: Settings
) -> None:
    tenant_id = str(uuid4())
    created = envelope(tenant_id, "created")
    steps = [
        ("created", created, ("Acme", "pro", "region-a", False)),
        ("updated", envelope(tenant_id, "updated", payload={"plan": "free"}), ("Acme", "free", "region-a", False)),
        ("deleted", envelope(tenant_id, "deleted", payload={}), ("Acme", "free", "region-a", True)),
    ]
    async with exchange_of(settings) as exchange, worker_in_this_process(settings):
        for what, body, row in steps:
            await publish(exchange, f"saas.{tenant_id}.tenant.{what}", body)
            await eventually(lambda row=row: tenant_row(engine, tenant_id) == [row])  # type: ignore[misc]
    event_id = json.loads(created)["id"]
    assert ask(engine, "SELECT FROM tenants WHERE tenant_id = %s", event_id, tenant=event_id) == []


SHAPES: dict[str, dict[str, Any]] = {
    "the type in the key alone": {"eventType": ...},
    "names in snake case": {"aggregateId": ..., "eventType": ..., "event_type": "tenant.created", "aggregate_id": "T"},
    "the type in capitals": {"eventType": "TENANT_CREATED"},
    "the type as a class": {"eventType": "TenantCreated"},
    "the content as data": {"payload": ..., "data": {"name": "Acme", "plan": "pro", "region": "region-a", "id": "7"}},
    "a content that names something else": {
        "payload": {
            "name": "Acme",
            "plan": "pro",
            "region": "region-a",
            "aggregateId": "another",
            "tenantId": "another",
        }
    },
    "no envelope": {"aggregateId": ..., "payload": ..., "id": "T", "name": "Acme", "plan": "pro", "region": "region-a"},
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_tenant_is_read_whatever_its_envelope(engine: Engine, settings: Settings, shape: str) -> None:
    tenant_id = str(uuid4())
    changes = {name: tenant_id if value == "T" else value for name, value in SHAPES[shape].items()}
    async with exchange_of(settings) as exchange, worker_in_this_process(settings):
        await publish(exchange, "saas.T.tenant.created", envelope(tenant_id, "created", **changes))
        await eventually(lambda: tenant_row(engine, tenant_id) == [("Acme", "pro", "region-a", False)])


MALFORMED = [
    (b"{", "not JSON"),
    (b"\xff", "not JSON"),
    (b"[" * 5000, "not JSON"),
    (b'{"id": "a", "id": "b"}', "not JSON"),
    (b"[]", "not a JSON object"),
    (b'{"plan": 1e9223372036854775808, "id": "a"}', ""),
    (b"{}", "tenant_id: is required"),
    (envelope("*", "created"), "tenant_id: must be 1 to 64 letters, digits and . _ : -"),
    (envelope("a b", "created"), "tenant_id: must be 1 to 64 letters, digits and . _ : -"),
    (envelope("t" * 65, "created"), "tenant_id: must be 1 to 64 letters, digits and . _ : -"),
    (envelope("t", "created", aggregateId=None), "tenant_id: must be a text"),
    (envelope("t", "created", aggregateId=7), "tenant_id: must be a text"),
    (envelope("t", "created", payload={"name": 7}), "name: must be a text"),
    (envelope("t", "created", payload={"plan": ""}), "plan: must not be empty"),
    (envelope("t", "created", payload={"name": "n" * 201}), "name: must have at most 200 characters"),
    (envelope("t", "created", payload={"name": "a\0b"}), "name: must not hold a NUL character"),
    (envelope("t", "renamed"), "no handler for tenant.renamed"),
    (envelope("t", "created", eventType=7), "no handler for 7"),
    (b" " * 300_000, "are allowed"),
]


async def test_a_malformed_tenant_message_is_a_dead_letter_at_once_and_the_next_is_heard(
    engine: Engine, settings: Settings
) -> None:
    tenant_id = str(uuid4())
    async with exchange_of(settings) as exchange, worker_in_this_process(settings):
        await publish(exchange, "saas.T.tenant.created", envelope(str(uuid4()), "created"))
        await drop_dead_letters(settings)
        for body, _ in MALFORMED:
            await publish(exchange, "saas.T.tenant.created", body)
        await publish(exchange, "saas.T.tenant.created", envelope(tenant_id, "created"))
        await eventually(lambda: tenant_row(engine, tenant_id))
        await dead_letters_are(settings, len(MALFORMED))
        letters = {letter.body: letter for letter in await list_dead_letters(settings)}
    for body, reason in MALFORMED:
        letter = letters[body.decode(errors="backslashreplace")]
        assert reason in letter.reason, letter
        assert (letter.attempts, letter.routing_key) == (1, "saas.T.tenant.created")
