"""Payments all the way to SETTLED, as fast as the system bears: what is under way is bounded, so nothing piles up."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import psycopg

from bench.load import LoadFailed, PacedClient, PacedResult, without_pauses
from bench.servers import Books, Process
from payments_ledger.postgres.database import driver_url

# Payments under way at once: created or confirmed and not yet SETTLED. It is several times what throughput and latency
# of an engine at full load need, so it bounds the backlog without slowing anything down.
UNDER_WAY_MAX = 600
CONNECTIONS = 64
POLL_SECONDS = 0.05
DRAIN_SECONDS_MAX = 120.0
SLICES = 6
# What every payment of this benchmark is over, in minor units: the totals then tell how many were settled.
AMOUNT = 10_000

_SETTLED = "SELECT coalesce(sum(debits), 0) / %s FROM account_totals WHERE account = 'CASH'"
_UNPUBLISHED = "SELECT count(*) FROM outbox_events WHERE published_at IS NULL AND buried_at IS NULL"


@dataclass
class Sustained:
    """A window of full load. A backlog is (authorized but not SETTLED, events not published)."""

    settled_a_second: float
    slices: list[float]
    backlog_before: tuple[int, int]
    backlog_after: tuple[int, int]
    payments: int


@dataclass
class Followed:
    """Payments at a fixed rate: what the client saw, and what the database says of each (milliseconds)."""

    client: PacedResult
    to_settled_ms: list[float] = field(default_factory=list)
    to_published_ms: list[float] = field(default_factory=list)


class _Ledger:
    """What the database says of all tenants, asked beside the load."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def settled(self) -> int:
        return int(await self._number(_SETTLED, AMOUNT))

    async def unpublished(self) -> int:
        return int(await self._number(_UNPUBLISHED))

    async def now(self) -> datetime:
        cursor = await self._connection.execute("SELECT now()")
        [now] = await cursor.fetchone() or [None]
        assert isinstance(now, datetime)
        return now

    async def milliseconds(self, statement: str, *parameters: object) -> list[float]:
        cursor = await self._connection.execute(statement, parameters)
        return [float(value) for (value,) in await cursor.fetchall()]

    async def _number(self, statement: str, *parameters: object) -> int:
        cursor = await self._connection.execute(statement, parameters)
        [value] = await cursor.fetchone() or [0]
        return int(value)


async def sustain(
    api: Process, books: Books, *, warm_seconds: float, seconds: float, during: Callable[[str], None] = lambda _: None
) -> Sustained:
    """Holds UNDER_WAY_MAX payments under way for `seconds`; raises LoadFailed if they do not all settle afterwards.

    `during` hears "begin" and "end" of the window.
    """
    async with (
        await psycopg.AsyncConnection.connect(driver_url(books.superuser_url), autocommit=True) as connection,
        PacedClient(api.base_url, books.callers, connections=CONNECTIONS) as client,
    ):
        ledger = _Ledger(connection)
        base = await ledger.settled()

        async def hold(until: float) -> int:
            while True:
                settled = await ledger.settled() - base
                now = time.perf_counter()
                if now >= until:
                    return settled
                for _ in range(UNDER_WAY_MAX - (client.result.started - settled)):
                    client.start_payment(now)
                await asyncio.sleep(POLL_SECONDS)

        with without_pauses():
            await hold(time.perf_counter() + warm_seconds)
            marks: list[tuple[float, int]] = []
            backlogs: list[tuple[int, int]] = []
            during("begin")
            begin = time.perf_counter()
            for part in range(SLICES + 1):
                settled = await hold(begin + seconds * part / SLICES)
                marks.append((time.perf_counter(), settled))
                if part in (0, SLICES):
                    backlogs.append((client.result.confirmed - settled, await ledger.unpublished()))
            during("end")
        await client.finish()
        await _drain(ledger, base + client.result.confirmed)
    (first_time, first), (last_time, last) = marks[0], marks[-1]
    return Sustained(
        settled_a_second=(last - first) / (last_time - first_time),
        slices=[(late[1] - early[1]) / (late[0] - early[0]) for early, late in pairwise(marks)],
        backlog_before=backlogs[0],
        backlog_after=backlogs[1],
        payments=last - first,
    )


async def follow(api: Process, books: Books, *, rate: float, seconds: float) -> Followed:
    """`rate` payments a second, each followed to SETTLED by what the database wrote down.

    The time to SETTLED is from the beginning of the transaction that authorized (`at` of its audit row) to that of the
    transaction that settled (`updated_at`), both by the database's clock. The time to published ends when the relay
    has the broker's confirmation of payment.settled, which is after that transaction's commit: the truth of "settled
    and visible" lies between the two.
    """
    async with (
        await psycopg.AsyncConnection.connect(driver_url(books.superuser_url), autocommit=True) as connection,
        PacedClient(api.base_url, books.callers, connections=CONNECTIONS) as client,
    ):
        ledger = _Ledger(connection)
        base = await ledger.settled()
        with without_pauses():
            # The first second warms connections and caches, and is not counted.
            await client.run_rate(rate, 1)
            client.result = PacedResult(started=client.result.started, confirmed=client.result.confirmed)
            since = await ledger.now()
            await client.run_rate(rate, seconds)
        await _drain(ledger, base + client.result.confirmed)
        followed = Followed(client.result)
        followed.to_settled_ms = await ledger.milliseconds(_TO_SETTLED, since)
        followed.to_published_ms = await ledger.milliseconds(_TO_PUBLISHED, since)
    return followed


async def pace(api: Process, books: Books, *, rate: float, seconds: float) -> PacedResult:
    """`rate` payments a second; the latencies that the client saw."""
    async with PacedClient(api.base_url, books.callers, connections=CONNECTIONS) as client:
        with without_pauses():
            await client.run_rate(rate, 1)
            client.result = PacedResult()
            await client.run_rate(rate, seconds)
        return client.result


async def _drain(ledger: _Ledger, settled: int) -> None:
    deadline = time.perf_counter() + DRAIN_SECONDS_MAX
    while (found := await ledger.settled()) != settled or await ledger.unpublished():
        if time.perf_counter() > deadline:
            raise LoadFailed(f"{settled} payments were confirmed, {found} are settled")
        await asyncio.sleep(0.1)


_TO_SETTLED = """
    SELECT extract(epoch FROM payment.updated_at - authorized.at) * 1000
    FROM audit_log AS authorized
    JOIN payment_intents AS payment
      ON payment.tenant_id = authorized.tenant_id AND payment.id = authorized.target::uuid
    WHERE authorized.action = 'payment.authorize' AND authorized.at >= %s AND payment.status = 'SETTLED'
"""
_TO_PUBLISHED = """
    SELECT extract(epoch FROM event.published_at - authorized.at) * 1000
    FROM audit_log AS authorized
    JOIN outbox_events AS event
      ON event.tenant_id = authorized.tenant_id AND event.aggregate_id = authorized.target::uuid
    WHERE authorized.action = 'payment.authorize' AND authorized.at >= %s
      AND event.event_type = 'payment.settled' AND event.published_at IS NOT NULL
"""
