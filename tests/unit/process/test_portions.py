"""Long work gives way to others, and to other long work."""

import asyncio
from collections import Counter

import pytest

from payments_ledger.process import portions
from payments_ledger.process.portions import in_portions, turn

pytestmark = pytest.mark.anyio

WORKS = 10
VALUES = 20


class Passes:
    """Counts the passes of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    async def go_on(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def test_of_all_works_in_portions_one_has_a_portion_in_a_pass_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every value takes longer than that, so each is a portion.
    monkeypatch.setattr(portions, "PORTION_SECONDS", 0)
    passes = Passes()
    counting = asyncio.create_task(passes.go_on())
    portions_in: Counter[int] = Counter()

    async def work() -> list[int]:
        done = []
        async for value in in_portions(range(VALUES)):
            # The first portion of each was not waited for.
            if value:
                portions_in[passes.count] += 1
            done.append(value)
        return done

    done = await asyncio.gather(*(work() for _ in range(WORKS)))
    counting.cancel()
    assert done == [list(range(VALUES))] * WORKS
    assert portions_in.total() == WORKS * (VALUES - 1)
    assert max(portions_in.values()) == 1


async def test_one_that_no_longer_waits_for_its_turn_keeps_nobody_waiting() -> None:
    turns = [asyncio.create_task(turn()) for _ in range(5)]
    await asyncio.sleep(0)
    turns[1].cancel()
    turns[2].cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*turns, return_exceptions=True)
    assert [type(each) for each in ended] == [
        type(None),
        asyncio.CancelledError,
        asyncio.CancelledError,
        *[type(None)] * 2,
    ]


async def test_short_work_goes_on_without_waiting() -> None:
    passes = Passes()
    counting = asyncio.create_task(passes.go_on())
    await asyncio.sleep(0)
    before = passes.count
    assert [value async for value in in_portions(range(3))] == [0, 1, 2]
    counting.cancel()
    assert passes.count == before
