"""Throttling of logins: by address, and by e-mail address after failures in a row. Fails closed without its store."""

import asyncio
import time
from collections.abc import Collection
from hashlib import sha256
from math import ceil
from typing import Protocol
from weakref import WeakValueDictionary

from fastapi import Request

from payments_ledger.errors import LoginAway, LoginRests
from payments_ledger.platform.rate_limit import (
    WINDOW_SECONDS,
    Count,
    Counters,
    Limit,
    Usage,
    client_address,
    require_room,
)
from payments_ledger.platform.redis import Pipeline, RedisAway
from payments_ledger.platform.requests import ExactJSONRoute
from payments_ledger.platform.settings import MEMORY_URL, Settings

# Few enough that guessing is hopeless, more than people need to remember which password it was.
FAILURES_MAX = 10
REST_SECONDS = 30 * 60
# E-mail addresses of which one process remembers failures.
EMAILS_MAX = 100_000
# The tenant of a login that named none. No tenant has this name: it is empty.
NO_TENANT = ""


class Attempts(Protocol):
    """Attempts to log in with an e-mail address since its last success, told apart by the tenant that was named.

    All of them count together, so that naming another tenant, or none, gives no further attempts. They are told apart
    so that a success ends only the row of its own tenant: whoever has an account of the same e-mail address elsewhere
    cannot use it to go on guessing. What may not answer raises RedisAway.
    """

    async def add(self, email: str, tenant_id: str) -> Count:
        """Counts an attempt; the first begins the window of REST_SECONDS."""
        ...

    async def extend(self, email: str) -> None:
        """Begins the window of REST_SECONDS anew."""
        ...

    async def forget(self, email: str, tenant_ids: Collection[str]) -> None: ...

    async def close(self) -> None: ...


class RedisAttempts:
    def __init__(self, url: str) -> None:
        self._pipeline = Pipeline(url)

    async def add(self, email: str, tenant_id: str) -> Count:
        key, milliseconds = _key(email), REST_SECONDS * 1000
        _, numbers, _, left = await self._pipeline.run(
            ("HINCRBY", key, tenant_id, 1), ("HVALS", key), ("PEXPIRE", key, milliseconds, "NX"), ("PTTL", key)
        )
        return Count(sum(map(int, numbers)), min(max(left, 0), milliseconds))

    async def extend(self, email: str) -> None:
        await self._pipeline.run(("PEXPIRE", _key(email), REST_SECONDS * 1000))

    async def forget(self, email: str, tenant_ids: Collection[str]) -> None:
        await self._pipeline.run(("HDEL", _key(email), *tenant_ids))

    async def close(self) -> None:
        await self._pipeline.close()


class MemoryAttempts:
    """For the embedded mode, which is one process."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[dict[str, int], float]] = {}

    async def add(self, email: str, tenant_id: str) -> Count:
        now = time.monotonic()
        numbers, end = self._rows.get(email, ({}, 0.0))
        if end <= now:
            numbers, end = {}, now + REST_SECONDS
        numbers[tenant_id] = numbers.get(tenant_id, 0) + 1
        self._rows[email] = (numbers, end)
        if len(self._rows) > EMAILS_MAX:
            del self._rows[next(iter(self._rows))]
        return Count(sum(numbers.values()), ceil((end - now) * 1000))

    async def extend(self, email: str) -> None:
        if email in self._rows:
            self._rows[email] = (self._rows[email][0], time.monotonic() + REST_SECONDS)

    async def forget(self, email: str, tenant_ids: Collection[str]) -> None:
        numbers, _ = self._rows.get(email, ({}, 0.0))
        for tenant_id in tenant_ids:
            numbers.pop(tenant_id, None)
        if not numbers:
            self._rows.pop(email, None)

    async def close(self) -> None:
        self._rows.clear()


def attempts_of(redis_url: str) -> Attempts:
    return MemoryAttempts() if redis_url.startswith(MEMORY_URL) else RedisAttempts(redis_url)


class Logins:
    """Who may try to log in now. Raises LoginAway when the attempts cannot be counted."""

    def __init__(self, settings: Settings, counters: Counters, attempts: Attempts) -> None:
        self._limit = Limit("login", settings.login_rate_limit_per_min)
        self._counters = counters
        self._attempts = attempts
        # Kept only as long as somebody waits for them.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def admit(self, request: Request) -> None:
        """Counts a login from the request's address; raises RateLimited."""
        try:
            count = await self._counters.add(f"ledger:limit:login:{client_address(request)}", WINDOW_SECONDS)
        except RedisAway:
            raise LoginAway from None
        require_room(request, Usage(self._limit, count))

    def turn(self, email: str) -> asyncio.Lock:
        """Attempts with one e-mail address go one by one in a process, so that right ones never look like a row."""
        return self._turns.setdefault(email, asyncio.Lock())

    async def begin(self, email: str, tenant_id: str | None) -> None:
        """Counts an attempt before its password is looked at, as if it were to fail; raises LoginRests."""
        try:
            count = await self._attempts.add(email, tenant_id or NO_TENANT)
        except RedisAway:
            raise LoginAway from None
        if count.number > FAILURES_MAX:
            raise LoginRests(count.seconds_left)

    async def fail(self, email: str) -> None:
        """The rest, should this have been the last attempt, begins now."""
        try:
            await self._attempts.extend(email)
        except RedisAway:
            raise LoginAway from None

    async def succeed(self, email: str, tenant_ids: Collection[str | None]) -> None:
        """Ends the row of failures with these tenants, None for a login that named none."""
        try:
            await self._attempts.forget(email, [tenant_id or NO_TENANT for tenant_id in tenant_ids])
        except RedisAway:
            raise LoginAway from None


class LoginRoute(ExactJSONRoute):
    """A route that counts its client's address before it reads anything of the request."""

    async def admit(self, request: Request) -> None:
        logins: Logins = request.app.state.logins
        await logins.admit(request)


def _key(email: str) -> str:
    # A digest: one length for every address, and no list of customers in Redis.
    return f"ledger:login:{sha256(email.encode()).hexdigest()}"
