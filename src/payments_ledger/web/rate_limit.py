"""Rate limits: how many requests of one kind a client may make a minute, counted over all API processes.

The window is fixed: it begins with a client's first request and ends a minute later, by the clock of Redis. The header
fields are those of the IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-10).
"""

import time
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Protocol

from fastapi import Request
from prometheus_client import Counter
from redis.exceptions import NoScriptError

from payments_ledger.errors import RateLimited
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.redis.pipeline import Pipeline, RedisUnavailable

RATE_LIMITS = Counter("ledger_rate_limits_total", "Requests counted against a limit", ["limit", "outcome"])
COUNTED_LOCALLY = Counter("ledger_rate_limit_local_total", "Requests counted in this process, Redis being unreachable")

WINDOW_SECONDS = 60
# Clients that one process remembers, some 20 MB of them. Beyond it the oldest window is dropped.
CLIENTS_MAX = 100_000
# Nobody is given a single IPv6 address: a home has all 2^64 of its network.
IPV6_NETWORK_BITS = 64

# Counts, and begins the window if there is none. One command for us to write and one reply to read: INCR, PEXPIRE NX
# and PTTL took twice the time of this process (ADR 16). Delete the script for a command of Redis that does the same.
_COUNT = """
local number = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    left = tonumber(ARGV[1])
    redis.call('PEXPIRE', KEYS[1], left)
end
return {number, left}
"""
# By this Redis knows the script.
_COUNT_ID = sha1(_COUNT.encode(), usedforsecurity=False).hexdigest()

READS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Limit:
    """`quota` requests a minute; `name` is what clients see in the header fields."""

    name: str
    quota: int


@dataclass(frozen=True, slots=True)
class Count:
    """How often something was counted in its window, and in how many milliseconds the window ends."""

    number: int
    milliseconds_left: int

    @property
    def seconds_left(self) -> int:
        """Whole seconds after which the window is over for certain."""
        return max(ceil(self.milliseconds_left / 1000), 1)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client has used of a limit."""

    limit: Limit
    count: Count

    @property
    def policy_field(self) -> str:
        return f'"{self.limit.name}";q={self.limit.quota};w={WINDOW_SECONDS}'

    @property
    def state_field(self) -> str:
        remaining = max(self.limit.quota - self.count.number, 0)
        return f'"{self.limit.name}";r={remaining};t={self.count.seconds_left}'


class Counters(Protocol):
    """Counts that expire when their window ends. Without Redis they raise RedisUnavailable."""

    async def add(self, key: str, window_seconds: int) -> Count:
        """Counts once more. The window begins with the first."""
        ...

    async def close(self) -> None: ...


class RedisCounters:
    """Counts shared by all processes; Redis keeps the time."""

    def __init__(self, url: str) -> None:
        self._pipeline = Pipeline(url)

    async def add(self, key: str, window_seconds: int) -> Count:
        arguments = (1, key, window_seconds * 1000)
        try:
            [(number, left)] = await self._pipeline.run(("EVALSHA", _COUNT_ID, *arguments))
        except NoScriptError:
            # Redis is new or was flushed. This one command teaches it the script again.
            [(number, left)] = await self._pipeline.run(("EVAL", _COUNT, *arguments))
        return Count(number, left)

    async def close(self) -> None:
        await self._pipeline.close()


class MemoryCounters:
    """Counts of this process alone: for the embedded mode, and while Redis is unreachable."""

    def __init__(self, clients_max: int = CLIENTS_MAX) -> None:
        self._clients_max = clients_max
        # Number and end, in the order in which the windows began.
        self._windows: dict[str, tuple[int, float]] = {}

    async def add(self, key: str, window_seconds: int) -> Count:
        now = time.monotonic()
        number, end = self._windows.get(key, (0, 0.0))
        if end <= now:
            self._windows.pop(key, None)
            self._make_room(now)
            number, end = 0, now + window_seconds
        self._windows[key] = (number + 1, end)
        return Count(number + 1, ceil((end - now) * 1000))

    async def close(self) -> None:
        self._windows.clear()

    def _make_room(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][1] > now and len(self._windows) < self._clients_max:
                return
            del self._windows[oldest]


def counters_of(redis_url: str) -> Counters:
    """Counted in Redis by all processes together; for `memory://`, by this process alone."""
    return MemoryCounters() if redis_url.startswith(MEMORY_URL) else RedisCounters(redis_url)


class RateLimiter:
    """The limits of this installation. While the shared counters are unreachable, each process counts for itself."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._read = Limit("read", settings.rate_limit_read_per_min)
        self._write = Limit("write", settings.rate_limit_write_per_min)
        self._shared = counters
        self._local = MemoryCounters()

    async def admit(self, request: Request, client: str) -> None:
        """Counts a request of `client`, for reads or for writes; raises RateLimited."""
        limit = self._read if request.method in READS else self._write
        try:
            count = await self._shared.add(_key(limit, client), WINDOW_SECONDS)
        except RedisUnavailable:
            COUNTED_LOCALLY.inc()
            count = await self._local.add(_key(limit, client), WINDOW_SECONDS)
        require_room(request, Usage(limit, count))

    async def close(self) -> None:
        await self._shared.close()


def require_room(request: Request, usage: Usage) -> None:
    """Leaves the usage for the response's header fields; raises RateLimited if it is beyond the limit."""
    request.state.rate_limit = usage
    if usage.count.number > usage.limit.quota:
        _outcome(usage.limit.name, "refused").inc()
        raise RateLimited(usage.count.seconds_left)
    _outcome(usage.limit.name, "admitted").inc()


@cache
def _outcome(limit: str, outcome: str) -> Counter:
    return RATE_LIMITS.labels(limit, outcome)


def client_address(request: Request) -> str:
    """The client's address as limits count it: an IPv6 address stands for its network."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> IPV6_NETWORK_BITS << IPV6_NETWORK_BITS))


def _key(limit: Limit, client: str) -> str:
    return f"ledger:limit:{limit.name}:{client}"
