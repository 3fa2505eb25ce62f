"""What readyz asks of others is asked once, however many want to know."""

import asyncio

import pytest

from payments_ledger.web import health
from payments_ledger.web.health import shared

pytestmark = pytest.mark.anyio


async def test_everybody_who_asks_at_once_shares_one_question() -> None:
    asked = 0

    async def check() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    ask = shared(check)
    assert await asyncio.gather(*(ask() for _ in range(50))) == [True] * 50
    assert await ask()
    assert asked == 1


async def test_an_answer_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SHARED_SECONDS", 0)
    answers = iter([True, False])

    async def check() -> bool:
        return next(answers)

    ask = shared(check)
    assert [await ask(), await ask()] == [True, False]


async def test_one_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    goes_on = asyncio.Event()

    async def check() -> bool:
        await goes_on.wait()
        return True

    ask = shared(check)

    async def one() -> bool:
        return await ask()

    impatient = asyncio.create_task(one())
    patient = asyncio.create_task(one())
    await asyncio.sleep(0)
    impatient.cancel()
    goes_on.set()
    assert await patient
