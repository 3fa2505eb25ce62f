"""Limits count a minute from a client's first request, and say truthfully what is left of it."""

from typing import Any

import pytest
from fastapi import Request

from payments_ledger.errors import RateLimited
from payments_ledger.process.settings import Settings
from payments_ledger.redis.pipeline import RedisUnavailable
from payments_ledger.web import rate_limit
from payments_ledger.web.rate_limit import (
    Count,
    Limit,
    MemoryCounters,
    RateLimiter,
    Usage,
    client_address,
)

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


def a_request(method: str = "POST", host: str = "192.0.2.1") -> Request:
    return Request({"type": "http", "method": method, "headers": [], "client": (host, 1), "state": {}})


def limiter(counters: Any, *, write: int = 2, read: int = 3) -> RateLimiter:
    settings = Settings(_env_file=None, rate_limit_write_per_min=write, rate_limit_read_per_min=read)
    return RateLimiter(settings, counters)


async def test_a_window_begins_with_the_first_request_and_ends_a_minute_later(clock: Clock) -> None:
    counters = MemoryCounters()
    assert await counters.add("k", 60) == Count(1, 60_000)
    clock.now += 59.5
    assert await counters.add("k", 60) == Count(2, 500)
    clock.now += 0.5
    assert await counters.add("k", 60) == Count(1, 60_000)


async def test_the_oldest_window_makes_room_when_there_are_too_many_clients(clock: Clock) -> None:
    counters = MemoryCounters(clients_max=2)
    for key in ("a", "b", "c"):
        await counters.add(key, 60)
    assert (await counters.add("c", 60)).number == 2
    assert (await counters.add("a", 60)).number == 1


async def test_reads_and_writes_are_limited_apart_and_clients_too(clock: Clock) -> None:
    limits = limiter(MemoryCounters())
    for client in ("x", "y"):
        for _ in range(2):
            await limits.admit(a_request("POST"), client)
        for _ in range(3):
            await limits.admit(a_request("GET"), client)
        for method in ("POST", "PUT", "DELETE", "GET", "HEAD"):
            with pytest.raises(RateLimited):
                await limits.admit(a_request(method), client)


async def test_retry_after_is_when_the_next_request_is_admitted(clock: Clock) -> None:
    limits = limiter(MemoryCounters(), write=1)
    await limits.admit(a_request(), "x")
    clock.now += 20.3
    with pytest.raises(RateLimited) as refused:
        await limits.admit(a_request(), "x")
    assert refused.value.retry_after_seconds == 40
    clock.now += 40
    await limits.admit(a_request(), "x")


async def test_without_the_shared_counters_this_process_counts_alone(clock: Clock) -> None:
    class Away(MemoryCounters):
        async def add(self, key: str, window_seconds: int) -> Count:
            raise RedisUnavailable

    limits = limiter(Away())
    await limits.admit(a_request(), "x")
    await limits.admit(a_request(), "x")
    with pytest.raises(RateLimited):
        await limits.admit(a_request(), "x")


@pytest.mark.parametrize(
    ("count", "state"),
    [
        (Count(1, 60_000), '"write";r=59;t=60'),
        (Count(60, 59_001), '"write";r=0;t=60'),
        (Count(61, 1_000), '"write";r=0;t=1'),
        (Count(5, 0), '"write";r=55;t=1'),
    ],
)
def test_the_header_fields_are_those_of_the_draft(count: Count, state: str) -> None:
    usage = Usage(Limit("write", 60), count)
    assert usage.policy_field == '"write";q=60;w=60'
    assert usage.state_field == state


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_ipv6_client_is_known_by_its_network(host: str, counted_as: str) -> None:
    assert client_address(a_request(host=host)) == counted_as
