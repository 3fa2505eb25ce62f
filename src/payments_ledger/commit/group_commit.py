"""Group commit: commands that arrive at the same time share one transaction, and none can harm another.

While one batch commits, the next collects. An idle server adds no wait, since a batch of one is just a small batch.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import structlog
from prometheus_client import Counter, Histogram

from payments_ledger.errors import OutcomeUnknown, TooBusy, Unavailable
from payments_ledger.postgres.database import Connection
from payments_ledger.process.failpoints import Place, failpoint
from payments_ledger.telemetry.tracing import start_span, traceparent_to_link

log = structlog.get_logger(__name__)

BATCH_SIZE = Histogram("ledger_batch_size", "Commands in a batch", buckets=(1, 2, 5, 10, 20, 50, 100, 200))
BATCH_WAIT_SECONDS = Histogram(
    "ledger_batch_wait_seconds", "Time a command waited for its batch", buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.5)
)
BATCH_RETRIES = Counter("ledger_batch_retries_total", "Batches run again after a collision with another transaction")

# Beyond about 200 commands a batch gains nothing more from sharing its commit and only holds its locks for longer.
BATCH_SIZE_MAX = 200
# One batch at a time is the rule, for each costs as much as ten commands in it. But one that waits for a lock must not
# keep all others waiting: when a batch is this late, the next begins beside it.
LATE_SECONDS = 0.05
BATCHES_AT_ONCE = 4
QUEUE_SIZE_MAX = 2000
# A command that could not start within this time is dropped unexecuted: its client is about to give up.
WAIT_SECONDS_MAX = 2.5
# The client has its response within this time, even when a batch that has started hangs.
RESPONSE_SECONDS_MAX = 4.5
ATTEMPTS_MAX = 5
RETRY_SECONDS_MAX = 0.05


class Command(Protocol):
    """What a batch needs to know of a command: whose rows it touches."""

    @property
    def tenant_id(self) -> str: ...


type UseCase[C: Command, O] = Callable[[Connection, Sequence[C]], Awaitable[Sequence[O]]]
"""Carries out commands within the caller's transaction; returns one outcome for each command, in their order."""


class OpenTransaction(Protocol):
    """Opens a transaction that sees the rows of `tenants` only, and commits where its block ends."""

    def __call__(self, tenants: Collection[str]) -> AbstractAsyncContextManager[Connection]: ...


# Two transactions collided: the same batch succeeds when it is run again.
_COLLISIONS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


@dataclass(slots=True, eq=False)
class _Waiting:
    use_case: UseCase[Any, Any]
    command: Command
    tenants: frozenset[str]
    outcome: asyncio.Future[Any]
    since: float
    link: str | None


class GroupCommit:
    """Runs use cases over whatever commands have come together, one transaction a batch."""

    def __init__(
        self,
        transaction: OpenTransaction,
        *,
        batch_size_max: int = BATCH_SIZE_MAX,
        queue_size_max: int = QUEUE_SIZE_MAX,
        collect_seconds: float = 0,
    ) -> None:
        """`collect_seconds` is how long a batch waits for more commands: 0 where a client waits for the response."""
        self._transaction = transaction
        self._collect_seconds = collect_seconds
        self._batch_size_max = batch_size_max
        self._queue_size_max = queue_size_max
        self._queue: deque[_Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._last_began = 0.0
        self._closed = False

    async def submit[C: Command, O](self, use_case: UseCase[C, O], command: C, *, tenants: Iterable[str] = ()) -> O:
        """Carries out `command` in some batch and returns its outcome, which is committed by then.

        `tenants` are those whose rows it touches besides its own.

        Raises TooBusy (nothing was done), DatabaseUnavailable (nothing was done) or OutcomeUnknown. A caller that is
        cancelled leaves its command in the batch.
        """
        if self._closed or len(self._queue) >= self._queue_size_max:
            raise TooBusy
        loop = asyncio.get_running_loop()
        touched = frozenset({command.tenant_id, *tenants})
        waiting = _Waiting(use_case, command, touched, loop.create_future(), time.monotonic(), traceparent_to_link())
        self._queue.append(waiting)
        self._start_batches()
        patience = loop.call_later(RESPONSE_SECONDS_MAX, self._give_up, waiting)
        try:
            outcome: O = await waiting.outcome
        finally:
            patience.cancel()
        return outcome

    async def drain(self) -> None:
        """Takes no more commands and finishes those it has."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
            _resolve(waiting, TooBusy())
        else:
            _resolve(waiting, OutcomeUnknown())

    def _start_batches(self) -> None:
        if not self._queue or len(self._running) >= BATCHES_AT_ONCE:
            return
        if not self._running or time.monotonic() - self._last_began >= LATE_SECONDS:
            self._running.add(asyncio.create_task(self._run_batches()))

    async def _run_batches(self) -> None:
        try:
            while self._queue:
                self._last_began = time.monotonic()
                # Commands of requests that the event loop is just about to handle still join this batch.
                await asyncio.sleep(self._collect_seconds)
                if batch := list(self._take_batch()):
                    BATCH_SIZE.observe(len(batch))
                    late = asyncio.get_running_loop().call_later(LATE_SECONDS, self._start_batches)
                    await self._carry_out(batch)
                    late.cancel()
        finally:
            # Not when the task is seen to be done, which is later: a command that came between would wait for another.
            if task := asyncio.current_task():
                self._running.discard(task)

    def _take_batch(self) -> Iterator[_Waiting]:
        now = time.monotonic()
        for _ in range(min(len(self._queue), self._batch_size_max)):
            waiting = self._queue.popleft()
            BATCH_WAIT_SECONDS.observe(now - waiting.since)
            if now - waiting.since > WAIT_SECONDS_MAX:
                _resolve(waiting, TooBusy())
            else:
                yield waiting

    async def _carry_out(self, batch: Sequence[_Waiting]) -> None:
        """Resolves every command of the batch; one that the database refuses is separated from the others."""
        try:
            outcomes = await self._run_with_retries(batch)
        except Unavailable as error:
            for waiting in batch:
                _resolve(waiting, error)
        except Exception as error:
            if len(batch) == 1:
                log.exception("command failed", command=type(batch[0].command).__name__)
                _resolve(batch[0], error)
                return
            middle = len(batch) // 2
            await self._carry_out(batch[:middle])
            await self._carry_out(batch[middle:])
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _resolve(waiting, outcome)

    async def _run_with_retries(self, batch: Sequence[_Waiting]) -> list[Any]:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return await self._run_once(batch)
            except _COLLISIONS:
                BATCH_RETRIES.inc()
                if attempt == ATTEMPTS_MAX and len(batch) == 1:
                    raise TooBusy from None
                if attempt == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(random.uniform(0, RETRY_SECONDS_MAX) * attempt)  # noqa: S311
        raise AssertionError("unreachable")

    async def _run_once(self, batch: Sequence[_Waiting]) -> list[Any]:
        by_use_case: dict[UseCase[Any, Any], list[_Waiting]] = {}
        for waiting in batch:
            by_use_case.setdefault(waiting.use_case, []).append(waiting)
        outcomes: dict[_Waiting, Any] = {}
        span = start_span("commit batch", "INTERNAL", links=(waiting.link for waiting in batch))
        failure: str | None = "rolled back"
        try:
            async with self._transaction(frozenset().union(*(waiting.tenants for waiting in batch))) as conn:
                for use_case, group in by_use_case.items():
                    results = await use_case(conn, [waiting.command for waiting in group])
                    outcomes.update(zip(group, results, strict=True))
                await failpoint(Place.BATCH_BEFORE_COMMIT)
            await failpoint(Place.BATCH_AFTER_COMMIT)
            failure = None
        finally:
            if span:
                span.end(attributes={"batch.size": len(batch)}, error=failure)
        return [outcomes[waiting] for waiting in batch]


def _resolve(waiting: _Waiting, outcome: Any) -> None:
    if waiting.outcome.done():
        return
    if isinstance(outcome, Exception):
        waiting.outcome.set_exception(outcome)
        # The client may be gone; asyncio would otherwise complain that the failure was never retrieved.
        waiting.outcome.exception()
    else:
        waiting.outcome.set_result(outcome)
