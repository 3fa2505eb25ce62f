"""Redis, where it is used: a cache and a counter of requests, never a record of anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from payments_ledger.errors import DependencyUnavailable

log = structlog.get_logger(__name__)

# For readyz, which may wait: can it be reached at all?
RESPONSE_SECONDS_MAX = 1.0
# For requests: some hundred times what a healthy Redis needs, and still not much to the one client that waits for it.
PIPELINE_SECONDS_MAX = 0.3
# Requests that share a pipeline. Beyond it the first would wait for too many replies to be read.
PIPELINE_SIZE_MAX = 256
# After a failure no request waits for Redis until a probe in the background, sent this often, has had a reply: a client
# that waits a second or two before its next attempt is not refused once more.
PROBE_SECONDS = 1.0

type RedisCommand = tuple[str | bytes | int, ...]


class RedisUnavailable(DependencyUnavailable):
    """Redis does not reply, or did not a moment ago."""


def connect(url: str, *, response_seconds_max: float = RESPONSE_SECONDS_MAX) -> redis.Redis:
    """A client that connects when it is first used and again after every loss. It repeats nothing by itself."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=response_seconds_max,
        socket_timeout=response_seconds_max,
        retry=Retry(NoBackoff(), 0),
        protocol=3,
    )


async def is_up(client: redis.Redis) -> bool:
    """Whether Redis replies to a PING now, within the client's time limit."""
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False


@dataclass(slots=True, eq=False)
class _Waiting:
    commands: Sequence[RedisCommand]
    replies: asyncio.Future[list[Any]]


class Pipeline:
    """Commands of concurrent requests in one round trip: while one pipeline is on its way, the next collects.

    The round trip belongs to a task of its own. A request that is cancelled leaves its commands in it, so no
    connection is ever left with an unread reply. While Redis is unavailable it is probed in the background,
    so its return costs no request.

    Hand-optimised (ADR 16): a round trip for each request cost 40 % of the requests/s, a shared pipeline nothing that
    could be measured. It may be deleted once the client library shares a connection among concurrent commands.
    """

    def __init__(self, url: str) -> None:
        self._client = connect(url, response_seconds_max=PIPELINE_SECONDS_MAX)
        self._queue: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None
        # While Redis is known to be unavailable.
        self._probing: asyncio.Task[None] | None = None

    async def run(self, *commands: RedisCommand) -> list[Any]:
        """The replies to the commands, in their order. Raises RedisUnavailable, at once while that is known.

        Raises NoScriptError if a script of the commands is not known to Redis.
        """
        if self._probing is not None:
            raise RedisUnavailable
        waiting = _Waiting(commands, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await waiting.replies

    async def close(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._client.aclose()

    async def _send_all(self) -> None:
        try:
            while self._queue:
                # Commands of requests that the event loop is just about to handle still join.
                await asyncio.sleep(0)
                batch, self._queue = self._queue[:PIPELINE_SIZE_MAX], self._queue[PIPELINE_SIZE_MAX:]
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        try:
            pipeline = self._client.pipeline(transaction=False)
            for waiting in batch:
                for command in waiting.commands:
                    pipeline.execute_command(*command)
            replies = iter(await pipeline.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            log.warning("redis unavailable", reason=str(error))
            if self._probing is None:
                self._probing = asyncio.create_task(self._probe())
            # Requests that queued in the meantime need not wait for a second failure.
            batch, self._queue = [*batch, *self._queue], []
            for waiting in batch:
                _resolve(waiting, RedisUnavailable())
            return
        for waiting in batch:
            own = [next(replies) for _ in waiting.commands]
            # A Redis that replies with errors (loading, read-only, out of memory) is as good as none.
            failed = next((reply for reply in own if isinstance(reply, Exception)), None)
            if isinstance(failed, NoScriptError):
                _resolve(waiting, failed)
            elif failed:
                log.warning("redis refuses", reason=str(failed))
                _resolve(waiting, RedisUnavailable())
            else:
                _resolve(waiting, own)

    async def _probe(self) -> None:
        """Returns when Redis replies."""
        try:
            while True:
                await asyncio.sleep(PROBE_SECONDS)
                if await is_up(self._client):
                    return
        finally:
            self._probing = None


def _resolve(waiting: _Waiting, outcome: list[Any] | Exception) -> None:
    if waiting.replies.done():
        return
    if isinstance(outcome, Exception):
        waiting.replies.set_exception(outcome)
    else:
        waiting.replies.set_result(outcome)
