"""Long work in portions, between which the process serves others: one request must not keep all of them waiting."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from weakref import WeakKeyDictionary

# A quarter of the 20 ms for which no request may hold the event loop: what follows the last portion needs room, too.
PORTION_SECONDS = 0.005

_waiting_in: WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = WeakKeyDictionary()


async def in_portions[T](values: Iterable[T]) -> AsyncIterator[T]:
    """The values one by one; others get their turn whenever the work on them took PORTION_SECONDS."""
    began = time.perf_counter()
    for value in values:
        yield value
        if time.perf_counter() - began > PORTION_SECONDS:
            await turn()
            began = time.perf_counter()


async def turn() -> None:
    """Waits for a pass of the event loop in which nobody else was given a turn.

    Ten works in portions would otherwise each have a portion in every pass, and a request, which takes several passes,
    would wait for all ten each time.
    """
    loop = asyncio.get_running_loop()
    waiting = _waiting_in.setdefault(loop, deque())
    mine: asyncio.Future[None] = loop.create_future()
    waiting.append(mine)
    if len(waiting) == 1:
        loop.call_soon(_give_turn, loop, waiting)
    await mine


def _give_turn(loop: asyncio.AbstractEventLoop, waiting: deque[asyncio.Future[None]]) -> None:
    """To the first that is still waiting for it, and in the next pass to the one behind."""
    while waiting:
        first = waiting.popleft()
        if not first.done():
            first.set_result(None)
            break
    if waiting:
        loop.call_soon(_give_turn, loop, waiting)
