"""Throttling of logins: by address, and by e-mail address after failures. Fails closed without its store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from fastapi import Request

from payments_ledger.access.attempts import NO_TENANT, Attempts, LoginAttempt
from payments_ledger.errors import LoginUnavailable, TooManyFailedLogins
from payments_ledger.process.settings import Settings
from payments_ledger.redis.pipeline import RedisUnavailable
from payments_ledger.web.rate_limit import (
    WINDOW_SECONDS,
    Counters,
    Limit,
    Usage,
    client_address,
    require_room,
)

# In a row, from one network. Few enough that guessing is hopeless, more than people need to remember which password it
# was; and nobody else's failures keep them out.
FAILURES_MAX = 10
# With one e-mail address in an hour, from all networks together, refused ones included: so many are guesses from
# everywhere. It is the one limit by which strangers can keep somebody out, so it is far beyond the first.
FAILURES_IN_THE_HOUR_MAX = 100


class Logins:
    """Who may try to log in now. Raises LoginUnavailable when the attempts cannot be counted."""

    def __init__(self, settings: Settings, counters: Counters, attempts: Attempts) -> None:
        self._limit = Limit("login", settings.login_rate_limit_per_min)
        self._counters = counters
        self._attempts = attempts
        # Kept only as long as somebody waits for them.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def admit(self, request: Request) -> None:
        """Counts a login from the request's address; raises RateLimited."""
        with _counting():
            count = await self._counters.add(f"ledger:limit:login:{client_address(request)}", WINDOW_SECONDS)
        require_room(request, Usage(self._limit, count))

    def turn(self, attempt: LoginAttempt) -> asyncio.Lock:
        """Attempts of one row go one by one in a process, so that right ones never look like failures in a row."""
        return self._turns.setdefault((attempt.email, attempt.network), asyncio.Lock())

    async def begin(self, attempt: LoginAttempt) -> None:
        """Counts an attempt before its password is looked at, as if it were to fail; raises TooManyFailedLogins."""
        with _counting():
            counted = await self._attempts.add(attempt)
            row_is_full = counted.in_a_row.number > FAILURES_MAX
            hour_is_full = counted.in_the_hour.number > FAILURES_IN_THE_HOUR_MAX
            if hour_is_full and not row_is_full:
                # Strangers' failures are not this network's own.
                await self._attempts.take_back(attempt)
        if row_is_full or hour_is_full:
            raise TooManyFailedLogins(
                max(
                    counted.in_a_row.seconds_left if row_is_full else 0,
                    counted.in_the_hour.seconds_left if hour_is_full else 0,
                )
            )

    async def fail(self, attempt: LoginAttempt) -> None:
        """The lockout, should this have been the last attempt of its row, begins now."""
        with _counting():
            await self._attempts.extend(attempt)

    async def succeed(self, attempt: LoginAttempt, tenant_id: str) -> None:
        """Ends the row of failures with the user's tenant, and with the tenant as it was named."""
        with _counting():
            await self._attempts.succeed(attempt, {attempt.tenant_id, tenant_id})

    async def close(self) -> None:
        await self._attempts.close()


@contextmanager
def _counting() -> Iterator[None]:
    try:
        yield
    except RedisUnavailable:
        raise LoginUnavailable from None


def attempt_of(request: Request, email: str, tenant_id: str | None) -> LoginAttempt:
    """`tenant_id` is the tenant as the client named it, None if it named none."""
    return LoginAttempt(email, client_address(request), tenant_id or NO_TENANT)
