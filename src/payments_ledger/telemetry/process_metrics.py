"""What a process measures of itself twice a second: how late its event loop is, and what its pools do."""

import asyncio
from collections import Counter as Tally
from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from payments_ledger.postgres.database import Database
from payments_ledger.process.periodic import repeat

LAG_SECONDS = Histogram(
    "ledger_event_loop_lag_seconds",
    "How late the event loop came back to a task that slept",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2.5),
)
# livesum: of the processes of one server that run.
POOL_CONNECTIONS = Gauge(
    "ledger_pool_connections", "Connections to PostgreSQL", ["pool", "state"], multiprocess_mode="livesum"
)
POOL_SIZE_MAX = Gauge(
    "ledger_pool_connections_max", "Connections that the pool may have", ["pool"], multiprocess_mode="livesum"
)
POOL_WAITING = Gauge(
    "ledger_pool_waiting", "Transactions that wait for a connection now", ["pool"], multiprocess_mode="livesum"
)
# By the counter's name, which of the pool's own counts it shows, and in what unit of it.
POOL_COUNTERS = (
    (Counter("ledger_pool_requests_total", "Connections asked for", ["pool"]), "requests_num", 1),
    (Counter("ledger_pool_failures_total", "Connections asked for in vain", ["pool"]), "requests_errors", 1),
    (Counter("ledger_pool_wait_seconds_total", "Time waited for connections", ["pool"]), "requests_wait_ms", 1000),
    (Counter("ledger_pool_use_seconds_total", "Time connections were in use", ["pool"]), "usage_ms", 1000),
    (Counter("ledger_pool_lost_total", "Connections found broken", ["pool"]), "connections_lost", 1),
)

OBSERVE_SECONDS = 0.5


async def observe_process(pools: Mapping[str, Database]) -> None:
    """Observes the event loop and the pools, given by their names, until cancelled."""
    loop = asyncio.get_running_loop()
    seen: Tally[tuple[str, str]] = Tally()

    async def observe() -> None:
        for name, database in pools.items():
            _observe_pool(name, database, seen)
        asleep_since = loop.time()
        await asyncio.sleep(OBSERVE_SECONDS)
        LAG_SECONDS.observe(max(loop.time() - asleep_since - OBSERVE_SECONDS, 0))

    await repeat("process metrics", observe, seconds=0)


def _observe_pool(name: str, database: Database, seen: Tally[tuple[str, str]]) -> None:
    """`seen` holds what the counters have had of the pool's own counts."""
    statistics = database.statistics()
    size, idle = statistics["pool_size"], statistics["pool_available"]
    POOL_SIZE_MAX.labels(name).set(statistics["pool_max"])
    POOL_CONNECTIONS.labels(name, "idle").set(idle)
    POOL_CONNECTIONS.labels(name, "used").set(size - idle)
    POOL_WAITING.labels(name).set(statistics["requests_waiting"])
    for counter, statistic, unit in POOL_COUNTERS:
        # The pool leaves out what never happened.
        value = statistics.get(statistic, 0)
        counter.labels(name).inc((value - seen[name, statistic]) / unit)
        seen[name, statistic] = value
