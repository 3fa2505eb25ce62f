"""Gauges of what lies elsewhere, in the database and the broker: the worker measures them, so a scrape asks nobody.

Each module has its own gauges and measures them (delivery/gauges.py and its like). Several workers show the same
values: take the maximum, not the sum.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from prometheus_client import Gauge

from payments_ledger.process.periodic import repeat

MEASURED_AT = Gauge("ledger_gauges_timestamp_seconds", "When the worker last had a response for its gauges", ["of"])

MEASURE_SECONDS = 5.0

type Measure = Callable[[], Awaitable[None]]
"""Asks once, and sets gauges to the response."""


async def keep_measuring(source: str, *measures: Measure) -> NoReturn:
    """Measures every MEASURE_SECONDS until cancelled, and notes when `source` last had a response for all of them."""
    measured_at = MEASURED_AT.labels(source)
    measured_at.set_to_current_time()

    async def step() -> None:
        for measure in measures:
            await measure()
        measured_at.set_to_current_time()

    await repeat(f"{source} gauges", step, seconds=MEASURE_SECONDS)
