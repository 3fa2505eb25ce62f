"""Injected faults: for one tenant, in every process, in requests, handlers and publishing, and never where they end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from payments_ledger.chaos.faults import Chaos, DisturbedPublisher, Faults, MemoryChaosStore, chaos_of
from payments_ledger.demo.seed import add_tenant
from payments_ledger.errors import ChaosInjected
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.messaging.messages import Message
from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.queries import find_payment
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import runtime_role
from payments_ledger.process.settings import Settings
from payments_ledger.schema.migrate import migrate
from payments_ledger.worker import Worker
from tests.integration.administration import audit
from tests.integration.books import confirm_a_payment, create_a_payment
from tests.integration.conftest import Api, opened, serving
from tests.integration.http import PATH, assert_problem, create
from tests.services import PostgresServer, RedisServer

pytestmark = pytest.mark.anyio

CHAOS = "/v1/admin/chaos"
HOLDS_SECONDS_MAX = 2.0
FAIL = {"enabled": True, "fail_percent": 100, "latency_ms": 0}
OFF = {"enabled": False, "fail_percent": 0, "latency_ms": 0}


@pytest.fixture
async def chaotic(settings: Settings) -> AsyncIterator[Api]:
    async with serving(settings.model_copy(update={"chaos_enabled": True})) as api:
        yield api


@asynccontextmanager
async def keeping_up(chaos: Chaos) -> AsyncIterator[Chaos]:
    task = asyncio.create_task(chaos.run())
    try:
        yield chaos
    finally:
        task.cancel()
        await chaos.close()


async def until(ask: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until the answer is yes."""
    began = time.monotonic()
    while not await ask():
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def injected(place: str, kind: str) -> float:
    return REGISTRY.get_sample_value("ledger_chaos_injected_total", {"place": place, "kind": kind}) or 0.0


async def test_chaos_is_off_unless_it_is_permitted(api: Api, tenant: str) -> None:
    admin = api.headers(tenant, role="admin")
    assert (await api.client.get(CHAOS, headers=admin)).json() == OFF
    assert_problem(await api.client.put(CHAOS, json=FAIL, headers=admin), 409, "chaos_not_enabled")
    assert await audit(api, admin) == []


async def test_a_tenants_requests_fail_and_nobody_elses(chaotic: Api, tenant: str, new_tenant: Any) -> None:
    admin, ops, others = (
        chaotic.headers(tenant, role="admin"),
        chaotic.headers(tenant),
        chaotic.headers(await new_tenant()),
    )
    before = injected("request", "failure")
    response = await chaotic.client.put(CHAOS, json=FAIL, headers=admin)
    assert (response.status_code, response.json()) == (200, FAIL)
    failed = await create(chaotic, ops)
    assert_problem(failed, 503, "chaos_injected")
    assert failed.headers["Retry-After"] == "1"
    assert injected("request", "failure") == before + 1
    assert (await create(chaotic, others)).status_code == 201
    # Whoever may not get in at all is told so, chaos or not.
    assert_problem(await create(chaotic, chaotic.headers(tenant, role="sales")), 403, "permission_denied")
    # Never on these, or nobody could switch it off.
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/me", CHAOS, "/v1/admin/audit"):
        assert (await chaotic.client.get(path, headers=admin)).status_code == 200
    assert (await chaotic.client.put(CHAOS, json={"enabled": False}, headers=admin)).json() == OFF
    assert (await create(chaotic, ops)).status_code == 201
    rows = await audit(chaotic, admin, action="chaos.put")
    assert [row["detail"] for row in rows] == [{"before": FAIL, "after": OFF}, {"before": OFF, "after": FAIL}]


async def test_latency_delays_and_a_percentage_is_about_kept(chaotic: Api, tenant: str) -> None:
    admin, ops = chaotic.headers(tenant, role="admin"), chaotic.headers(tenant)
    faults = {"enabled": True, "fail_percent": 30, "latency_ms": 200}
    await chaotic.client.put(CHAOS, json=faults, headers=admin)
    began = time.monotonic()
    answers = await asyncio.gather(
        *(chaotic.client.get(f"{PATH}/{uuid4()}", headers=ops) for _ in range(300)),
    )
    seconds = time.monotonic() - began
    failed = sum(answer.status_code == 503 for answer in answers)
    # Each waits 200 ms, all at once: no sleep blocks another. Of 300, 30 % are 90; six deviations are 48.
    assert 0.2 <= seconds < 5
    assert 42 <= failed <= 138


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/enabled"),
        ({"enabled": True, "fail_percent": 101}, "#/fail_percent"),
        ({"enabled": True, "fail_percent": -1}, "#/fail_percent"),
        ({"enabled": True, "fail_percent": "many"}, "#/fail_percent"),
        ({"enabled": True, "latency_ms": 5001}, "#/latency_ms"),
        ({"enabled": True, "latency_ms": -1}, "#/latency_ms"),
        ({"enabled": True, "unknown": 1}, "#/unknown"),
    ],
)
async def test_faults_beyond_the_bounds_are_refused(
    chaotic: Api, tenant: str, body: dict[str, Any], pointer: str
) -> None:
    response = await chaotic.client.put(CHAOS, json=body, headers=chaotic.headers(tenant, role="admin"))
    assert_problem(response, 422, "invalid_request", pointer)


async def test_a_change_holds_in_every_process_within_two_seconds_and_ends_when_redis_is_away(
    settings: Settings, tenant: str, redis_server: RedisServer
) -> None:
    shared = settings.model_copy(update={"chaos_enabled": True, "redis_url": redis_server.url})
    async with (
        serving(shared) as here,
        serving(shared) as there,
        keeping_up(chaos_of(shared)) as worker,
    ):
        admin, ops = here.headers(tenant, role="admin"), here.headers(tenant)

        async def fails(api: Api) -> bool:
            return (await create(api, ops)).status_code == 503

        async def works(api: Api) -> bool:
            return (await create(api, ops)).status_code == 201

        async def worker_fails() -> bool:
            return worker.fails(tenant, "handler")

        async def worker_works() -> bool:
            return not worker.fails(tenant, "handler")

        assert (await here.client.put(CHAOS, json=FAIL, headers=admin)).status_code == 200
        assert await fails(here)
        assert await until(lambda: fails(there)) < HOLDS_SECONDS_MAX
        assert await until(worker_fails) < HOLDS_SECONDS_MAX
        redis_server.stop()
        try:
            # Payments go on undisturbed, and chaos can neither be read nor set.
            assert await until(lambda: works(here)) < HOLDS_SECONDS_MAX
            assert await until(lambda: works(there)) < HOLDS_SECONDS_MAX
            assert await until(worker_works) < HOLDS_SECONDS_MAX
            for request in (
                here.client.get(CHAOS, headers=admin),
                here.client.put(CHAOS, json=FAIL, headers=admin),
            ):
                assert_problem(await request, 503, "chaos_store_unavailable")
        finally:
            redis_server.start()
        assert len(await audit(here, admin, action="chaos.put")) == 1
        assert (await here.client.put(CHAOS, json=FAIL, headers=admin)).status_code == 200
        assert await until(worker_fails) < HOLDS_SECONDS_MAX


class Broker:
    def __init__(self) -> None:
        self.taken: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        self.taken += messages
        return [Delivery(Fate.ROUTED) for _ in messages]

    async def close(self) -> None:
        pass


def message(tenant_id: str) -> Message:
    return Message(str(uuid4()), "payment.authorized", b"{}", {"X-Tenant-Id": tenant_id})


async def test_handlers_and_publishing_fail_for_the_tenant_alone(settings: Settings) -> None:
    async with keeping_up(chaos_of(settings.model_copy(update={"chaos_enabled": True}))) as chaos:
        tenant = f"tenant-{uuid4()}"
        await chaos.set_faults(tenant, Faults(True, 100, 0))
        handled: list[Message] = []

        async def handle(taken: Message) -> None:
            handled.append(taken)

        disturbed = chaos.disturbing(handle)
        with pytest.raises(ChaosInjected):
            await disturbed(message(tenant))
        await disturbed(message("another"))
        assert len(handled) == 1

        broker = Broker()
        batch = [message(name) for name in ("another", tenant, "another", tenant)]
        deliveries = await DisturbedPublisher(broker, chaos).publish(batch)
        assert [delivery.fate for delivery in deliveries] == [Fate.ROUTED, Fate.FAILED, Fate.ROUTED, Fate.FAILED]
        assert broker.taken == [batch[0], batch[2]]

        await chaos.set_faults(tenant, Faults())
        assert await chaos.faults_of(tenant) == Faults()
        await disturbed(message(tenant))


async def test_a_worker_rehearses_and_settles_when_the_faults_end(postgres: PostgresServer, settings: Settings) -> None:
    url = await asyncio.to_thread(postgres.create_database, "chaos")
    await asyncio.to_thread(migrate, url)
    tenant, spared = f"tenant-{uuid4()}", f"tenant-{uuid4()}"
    async with (
        opened(Database(url, role=None, pool_size_max=2)) as owner,
        opened(Database(url, role=runtime_role(url), pool_size_max=2)) as database,
    ):
        for name in (tenant, spared):
            async with owner.transaction([name]) as conn:
                await add_tenant(conn, name, "A tenant of one test")
                await insert_accounts(conn, name, DEFAULT_ACCOUNTS)
        await MemoryChaosStore().write(tenant, Faults(True, 100, 0))
        worker = asyncio.create_task(
            Worker(settings.model_copy(update={"database_url": url, "chaos_enabled": True})).run()
        )

        async def is_settled(payment: Payment) -> bool:
            async with database.transaction([payment.tenant_id]) as conn:
                found = await find_payment(conn, payment.tenant_id, payment.id)
            return found is not None and found.status is Status.SETTLED

        try:
            held = await confirm_a_payment(database, await create_a_payment(database, tenant))
            free = await confirm_a_payment(database, await create_a_payment(database, spared))
            await until(lambda: is_settled(free))
            assert not await is_settled(held)
            await MemoryChaosStore().write(tenant, Faults())
            await until(lambda: is_settled(held))
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


async def test_what_cannot_be_written_to_the_audit_log_is_not_set(
    chaotic: Api, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(conn: Connection, _: object) -> None:
        await conn.execute("SELECT 1 / 0")

    admin = chaotic.headers(tenant, role="admin")
    with monkeypatch.context() as broken:
        broken.setattr("payments_ledger.commit.audit._insert_records", fail)
        answer = await chaotic.client.put(CHAOS, json=FAIL, headers=admin)
    assert_problem(answer, 500, "internal_error")
    assert (await chaotic.client.get(CHAOS, headers=admin)).json()["enabled"] is False
    assert (await create(chaotic, chaotic.headers(tenant))).status_code == 201
