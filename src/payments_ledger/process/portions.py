"""Long work in portions, between which the process serves others: one request must not keep all of them waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

# A quarter of the 20 ms for which no request may hold the event loop: what follows the last portion needs room, too.
PORTION_SECONDS = 0.005


async def in_portions[T](values: Iterable[T]) -> AsyncIterator[T]:
    """The values one by one; others get their turn whenever the work on them took PORTION_SECONDS."""
    began = time.perf_counter()
    for value in values:
        yield value
        if time.perf_counter() - began > PORTION_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
