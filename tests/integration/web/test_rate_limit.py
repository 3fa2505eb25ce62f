"""Limits over HTTP, on a real Redis: shared between processes, truthful to their clients, and in nobody's way."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from payments_ledger.process.settings import Settings
from payments_ledger.redis.pipeline import PIPELINE_SECONDS_MAX, Pipeline, RedisUnavailable
from tests.integration.conftest import Api, serving
from tests.integration.http import BODY, PATH, assert_problem
from tests.services import RedisServer

pytestmark = pytest.mark.anyio

NOTICED_SECONDS_MAX = 2.5


def counted_locally() -> float:
    return REGISTRY.get_sample_value("ledger_rate_limit_local_total") or 0.0


@pytest.fixture
def limited(settings: Settings, redis_server: RedisServer) -> Settings:
    """The defaults of the README, on Redis."""
    changes = {"redis_url": redis_server.url, "rate_limit_write_per_min": 60, "rate_limit_read_per_min": 240}
    return settings.model_copy(update=changes)


@pytest.fixture
async def apis(limited: Settings) -> AsyncIterator[list[Api]]:
    """Two applications that share nothing but their services, as two processes do."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(limited)) for _ in range(2)]


async def test_sixty_writes_a_minute_are_sixty_over_all_processes(apis: list[Api], tenant: str) -> None:
    headers = apis[0].headers(tenant)
    calls = (apis[number % 2].client.post(PATH, json=BODY, headers=headers) for number in range(150))
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {201: 60, 429: 90}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert_problem(refused, 429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"] == f'"write";r=0;t={refused.headers["Retry-After"]}'
    # Reads, another user and another tenant's users are not touched by it.
    assert (await apis[0].client.get("/v1/me", headers=headers)).status_code == 200
    assert (await apis[0].client.post(PATH, json=BODY, headers=apis[0].headers(tenant))).status_code == 201


async def test_every_answer_of_a_limited_route_says_what_is_left(apis: list[Api], tenant: str) -> None:
    client, headers = apis[0].client, apis[0].headers(tenant)
    answers = [
        await client.post(PATH, json=BODY, headers=headers),
        await client.post(PATH, json={}, headers=headers),
        await client.post(PATH, content=b"{", headers=headers),
        await client.post(PATH, json=BODY, headers=headers | {"X-Tenant-Id": "another"}),
        await client.post(f"{PATH}/{uuid4()}/confirm", headers=headers),
        await client.post(f"{PATH}/x/confirm", headers=headers),
    ]
    assert [answer.status_code for answer in answers][:2] == [201, 422]
    for number, answer in enumerate(answers, start=1):
        assert answer.headers["RateLimit-Policy"] == '"write";q=60;w=60'
        assert re.fullmatch(rf'"write";r={60 - number};t=(60|59|58|57)', answer.headers["RateLimit"])
    read = await client.get("/v1/ledger/balances", headers=headers)
    assert read.headers["RateLimit"].startswith('"read";r=239;')
    assert "RateLimit" not in (await client.get("/healthz")).headers


async def test_without_a_valid_token_the_address_is_counted_and_no_header_helps(limited: Settings, tenant: str) -> None:
    few = limited.model_copy(update={"rate_limit_read_per_min": 5})
    async with serving(few, address="192.0.2.66") as api:
        for attempt in range(7):
            headers = {
                "Authorization": f"Bearer {attempt}",
                "X-Tenant-Id": f"tenant-{attempt}",
                "X-Forwarded-For": f"198.51.100.{attempt}",
            }
            response = await api.client.get("/v1/ledger/balances", headers=headers)
            assert response.status_code == (401 if attempt < 5 else 429)
        # Who can show who they are is not held up by their neighbours.
        assert (await api.client.get("/v1/ledger/balances", headers=api.headers(tenant))).status_code == 200


async def test_the_global_administrator_has_one_quota_for_all_tenants(
    limited: Settings, tenant: str, new_tenant: Any
) -> None:
    other = await new_tenant()
    async with serving(limited.model_copy(update={"rate_limit_read_per_min": 2})) as api:
        headers = api.headers(tenant, role="admin", home="*")
        for tenant_id, status in ((tenant, 200), (other, 200), (tenant, 429), (other, 429)):
            response = await api.client.get("/v1/ledger/balances", headers=headers | {"X-Tenant-Id": tenant_id})
            assert response.status_code == status


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted"),
    [
        ((), "198.51.100.1", "192.0.2.1"),
        (("192.0.2.1",), "198.51.100.1", "198.51.100.1"),
        (("192.0.2.0/24",), "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (("10.0.0.0/8",), "198.51.100.1", "192.0.2.1"),
    ],
)
async def test_x_forwarded_for_counts_only_from_a_trusted_proxy(
    limited: Settings, redis_server: RedisServer, trusted: tuple[str, ...], forwarded: str, counted: str
) -> None:
    async with serving(limited.model_copy(update={"trusted_proxies": trusted}), address="192.0.2.1") as api:
        await api.client.get("/v1/me", headers={"X-Forwarded-For": forwarded})
    pipeline = Pipeline(redis_server.url)
    key = f"ledger:limit:read:address:{counted}"
    assert await pipeline.run(("DEL", key)) == [1]
    await pipeline.close()


async def test_without_redis_payments_go_on_under_a_local_limit_and_redis_takes_over_again(
    limited: Settings, tenant: str, redis_server: RedisServer
) -> None:
    async with serving(limited) as api:
        headers = api.headers(tenant)
        redis_server.stop()
        try:
            calls = (api.client.post(PATH, json=BODY, headers=headers) for _ in range(70))
            answers = await asyncio.gather(*calls)
            assert Counter(answer.status_code for answer in answers) == {201: 60, 429: 10}
        finally:
            redis_server.start()
        async with asyncio.timeout(10):
            while (await api.client.post(PATH, json=BODY, headers=headers)).status_code == 429:
                await asyncio.sleep(0.1)


async def test_when_redis_returns_it_is_noticed_without_a_request(
    limited: Settings, tenant: str, redis_server: RedisServer
) -> None:
    async with serving(limited) as api:
        headers = api.headers(tenant)
        await api.client.get("/v1/me", headers=headers)
        redis_server.stop()
        try:
            assert (await api.client.get("/v1/me", headers=headers)).status_code == 200
        finally:
            redis_server.start()
        before = counted_locally()
        await asyncio.sleep(NOTICED_SECONDS_MAX)
        await api.client.get("/v1/me", headers=headers)
        assert counted_locally() == before


async def test_a_mute_redis_costs_one_short_wait_and_then_nothing(
    limited: Settings, tenant: str, redis_server: RedisServer
) -> None:
    loop = asyncio.get_running_loop()
    async with serving(limited) as api:
        headers = api.headers(tenant)
        assert (await api.client.get("/v1/me", headers=headers)).status_code == 200
        redis_server.pause()
        try:
            waits = []
            for _ in range(30):
                began = loop.time()
                assert (await api.client.get("/v1/me", headers=headers)).status_code == 200
                waits.append(loop.time() - began)
                await asyncio.sleep(0.1)
        finally:
            redis_server.resume()
    # One at first; more only where the machine itself stood still. Without the memory of it, all thirty.
    assert sum(wait >= PIPELINE_SECONDS_MAX for wait in waits) <= 3


async def test_a_flushed_redis_begins_new_windows_and_learns_the_script_again(
    limited: Settings, tenant: str, redis_server: RedisServer
) -> None:
    pipeline = Pipeline(redis_server.url)
    async with serving(limited) as api:
        headers = api.headers(tenant)
        for _ in range(2):
            for left in (59, 58):
                response = await api.client.post(PATH, json=BODY, headers=headers)
                assert response.headers["RateLimit"].startswith(f'"write";r={left};')
            await pipeline.run(("FLUSHALL",), ("SCRIPT", "FLUSH"))
    await pipeline.close()


async def test_concurrent_commands_share_pipelines_and_each_gets_its_own_answers(redis_server: RedisServer) -> None:
    pipeline = Pipeline(redis_server.url)
    key = str(uuid4())
    answers = await asyncio.gather(*(pipeline.run(("ECHO", f"{n}"), ("INCR", key)) for n in range(1000)))
    assert [int(echo) for echo, _ in answers] == list(range(1000))
    assert sorted(number for _, number in answers) == list(range(1, 1001))
    await pipeline.close()


async def test_a_cancelled_request_leaves_no_answer_behind_for_the_next(redis_server: RedisServer) -> None:
    pipeline = Pipeline(redis_server.url)
    for round_ in range(50):
        cancelled = asyncio.create_task(pipeline.run(("ECHO", "cancelled")))
        await asyncio.sleep(0 if round_ % 2 else 0.0005)
        cancelled.cancel()
        assert await pipeline.run(("ECHO", f"{round_}")) == [f"{round_}".encode()]
    await pipeline.close()


async def test_a_command_that_redis_refuses_harms_only_itself(redis_server: RedisServer) -> None:
    pipeline = Pipeline(redis_server.url)
    fine = asyncio.create_task(pipeline.run(("ECHO", "x")))
    with pytest.raises(RedisUnavailable):
        await pipeline.run(("NO-SUCH-COMMAND",))
    assert await fine == [b"x"]
    await pipeline.close()
