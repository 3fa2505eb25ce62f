"""Attempts to log in, counted by e-mail address: in a row from one network, and in an hour from anywhere."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Protocol

from payments_ledger.process.settings import MEMORY_URL
from payments_ledger.redis.pipeline import Pipeline
from payments_ledger.web.rate_limit import Count

# How long a row is remembered, and an e-mail address is locked out for the network of the row.
REST_SECONDS = 30 * 60
HOUR_SECONDS = 60 * 60
# Rows and hours that one process remembers; beyond it the oldest give way.
ROWS_MAX = 100_000
# The tenant of a login that named none. No tenant has this name: it is empty.
NO_TENANT = ""
# Keys that an unlocking looks through at once.
SCAN_COUNT = 1000


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """Of whom, with the tenant as it was named or NO_TENANT, and the client's network: see `client_address`."""

    email: str
    network: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Attempts with one e-mail address: in a row from this network, and in this hour from all networks."""

    in_a_row: Count
    in_the_hour: Count


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was known of an e-mail address: attempts in rows from so many networks, and attempts in this hour."""

    networks: int
    in_rows: int
    in_the_hour: int


class Attempts(Protocol):
    """Attempts with an e-mail address that have not succeeded. Without Redis they raise RedisUnavailable.

    Within a row they are distinguished by the tenant that was named. All of them count together, so that naming another
    tenant, or none, gives no further attempts. A success ends only the row of its own tenant: whoever has an account of
    the same e-mail address elsewhere cannot use it to go on guessing.
    """

    async def add(self, attempt: LoginAttempt) -> Counted:
        """Counts an attempt; the first of its network begins the window of REST_SECONDS, the first of all an hour."""
        ...

    async def extend(self, attempt: LoginAttempt) -> None:
        """Begins the row's window of REST_SECONDS anew."""
        ...

    async def take_back(self, attempt: LoginAttempt) -> None:
        """Takes an attempt out of its row; it stays in the hour."""
        ...

    async def succeed(self, attempt: LoginAttempt, tenant_ids: Collection[str]) -> None:
        """Takes an attempt out of the hour, and ends the rows of these tenants from its network."""
        ...

    async def forget(self, email: str) -> Forgotten:
        """Ends every row of the e-mail address, and its hour."""
        ...

    async def close(self) -> None: ...


class RedisAttempts:
    """A hash for each e-mail address and network with a field for each tenant, and a number for the hour."""

    def __init__(self, url: str) -> None:
        self._pipeline = Pipeline(url)

    async def add(self, attempt: LoginAttempt) -> Counted:
        row, hour = _row(attempt), _hour(attempt.email)
        _, numbers, _, row_left, number, _, hour_left = await self._pipeline.run(
            ("HINCRBY", row, attempt.tenant_id, 1),
            ("HVALS", row),
            ("PEXPIRE", row, REST_SECONDS * 1000, "NX"),
            ("PTTL", row),
            ("INCR", hour),
            ("PEXPIRE", hour, HOUR_SECONDS * 1000, "NX"),
            ("PTTL", hour),
        )
        return Counted(
            Count(sum(map(int, numbers)), min(max(row_left, 0), REST_SECONDS * 1000)),
            Count(number, min(max(hour_left, 0), HOUR_SECONDS * 1000)),
        )

    async def extend(self, attempt: LoginAttempt) -> None:
        await self._pipeline.run(("PEXPIRE", _row(attempt), REST_SECONDS * 1000))

    async def take_back(self, attempt: LoginAttempt) -> None:
        row = _row(attempt)
        # Should the row have ended meanwhile, this one must end, too.
        await self._pipeline.run(("HINCRBY", row, attempt.tenant_id, -1), ("PEXPIRE", row, REST_SECONDS * 1000, "NX"))

    async def succeed(self, attempt: LoginAttempt, tenant_ids: Collection[str]) -> None:
        hour = _hour(attempt.email)
        await self._pipeline.run(
            ("HDEL", _row(attempt), *tenant_ids), ("DECR", hour), ("PEXPIRE", hour, HOUR_SECONDS * 1000, "NX")
        )

    async def forget(self, email: str) -> Forgotten:
        networks, in_rows = 0, 0
        cursor = -1
        while cursor != 0:
            [(cursor, rows)] = await self._pipeline.run(
                ("SCAN", max(cursor, 0), "MATCH", f"{_key(email)}:from:*", "COUNT", SCAN_COUNT)
            )
            for row in rows:
                numbers, removed = await self._pipeline.run(("HVALS", row), ("DEL", row))
                networks += removed
                in_rows += sum(map(int, numbers))
        [in_the_hour] = await self._pipeline.run(("GETDEL", _hour(email)))
        return Forgotten(networks, in_rows, max(int(in_the_hour or 0), 0))

    async def close(self) -> None:
        await self._pipeline.close()


class MemoryAttempts:
    """For the embedded mode, which is one process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[dict[str, int], float]] = {}
        self._hours: dict[str, tuple[int, float]] = {}

    async def add(self, attempt: LoginAttempt) -> Counted:
        now = time.monotonic()
        key = attempt.email, attempt.network
        numbers, row_end = self._rows.get(key, ({}, 0.0))
        if row_end <= now:
            numbers, row_end = {}, now + REST_SECONDS
        numbers[attempt.tenant_id] = numbers.get(attempt.tenant_id, 0) + 1
        _keep(self._rows, key, (numbers, row_end))
        number, hour_end = self._hours.get(attempt.email, (0, 0.0))
        if hour_end <= now:
            number, hour_end = 0, now + HOUR_SECONDS
        _keep(self._hours, attempt.email, (number + 1, hour_end))
        return Counted(
            Count(sum(numbers.values()), ceil((row_end - now) * 1000)),
            Count(number + 1, ceil((hour_end - now) * 1000)),
        )

    async def extend(self, attempt: LoginAttempt) -> None:
        key = attempt.email, attempt.network
        if key in self._rows:
            self._rows[key] = (self._rows[key][0], time.monotonic() + REST_SECONDS)

    async def take_back(self, attempt: LoginAttempt) -> None:
        numbers, _ = self._rows.get((attempt.email, attempt.network), ({}, 0.0))
        numbers[attempt.tenant_id] = numbers.get(attempt.tenant_id, 0) - 1

    async def succeed(self, attempt: LoginAttempt, tenant_ids: Collection[str]) -> None:
        key = attempt.email, attempt.network
        numbers, _ = self._rows.get(key, ({}, 0.0))
        for tenant_id in tenant_ids:
            numbers.pop(tenant_id, None)
        if not numbers:
            self._rows.pop(key, None)
        number, end = self._hours.get(attempt.email, (0, 0.0))
        if number > 1:
            self._hours[attempt.email] = (number - 1, end)
        else:
            self._hours.pop(attempt.email, None)

    async def forget(self, email: str) -> Forgotten:
        rows = [self._rows.pop(key)[0] for key in list(self._rows) if key[0] == email]
        in_the_hour, _ = self._hours.pop(email, (0, 0.0))
        return Forgotten(len(rows), sum(sum(numbers.values()) for numbers in rows), in_the_hour)

    async def close(self) -> None:
        self._rows.clear()
        self._hours.clear()


def attempts_of(redis_url: str) -> Attempts:
    """Counted in Redis by all processes together; for `memory://`, by this process alone."""
    return MemoryAttempts() if redis_url.startswith(MEMORY_URL) else RedisAttempts(redis_url)


def _keep[K, V](known: dict[K, V], key: K, value: V) -> None:
    known[key] = value
    if len(known) > ROWS_MAX:
        del known[next(iter(known))]


def _key(email: str) -> str:
    # A digest: one length for every address, and no list of customers in Redis.
    return f"ledger:login:{sha256(email.encode()).hexdigest()}"


def _row(attempt: LoginAttempt) -> str:
    return f"{_key(attempt.email)}:from:{attempt.network}"


def _hour(email: str) -> str:
    return f"{_key(email)}:hour"
