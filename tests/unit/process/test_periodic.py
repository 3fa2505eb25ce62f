"""Work that is repeated: every so often, at once while there is more, and again after whatever fails."""

import asyncio
from collections.abc import Sequence

import psycopg
import pytest

from payments_ledger.errors import DependencyUnavailable, TooBusy
from payments_ledger.process import periodic
from payments_ledger.process.periodic import Again

pytestmark = pytest.mark.anyio


async def pauses_after(
    monkeypatch: pytest.MonkeyPatch, outcomes: Sequence[Again | Exception | None], **options: float
) -> list[float]:
    """How long each pause is, the first one before the first step, when the steps end so one after the other."""
    pauses: list[float] = []
    script = iter(outcomes)
    ended = asyncio.Event()

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    async def step() -> Again | None:
        outcome = next(script, ended)
        if outcome is ended:
            raise asyncio.CancelledError
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Again | None)
        return outcome

    with monkeypatch.context() as without_waiting:
        without_waiting.setattr("payments_ledger.process.periodic.asyncio.sleep", note)
        with pytest.raises(asyncio.CancelledError):
            await periodic.repeat("the work", step, **{"seconds": 60.0, **options})
    return pauses


async def test_a_step_is_taken_every_so_often_and_at_once_while_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await pauses_after(monkeypatch, [None, Again.AT_ONCE, Again.AT_ONCE, None]) == [0, 60, 0, 0, 60]


async def test_the_first_step_can_wait_for_a_process_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await pauses_after(monkeypatch, [None], first_after_seconds=5.0) == [5, 60]


@pytest.mark.parametrize(
    "failure",
    [TooBusy(), DependencyUnavailable("Redis"), psycopg.OperationalError("gone"), ValueError("a fault of ours")],
    ids=repr,
)
async def test_a_step_that_fails_is_taken_again(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    assert await pauses_after(monkeypatch, [failure, None]) == [0, 60, 60]
    assert await pauses_after(monkeypatch, [failure, None], retry_seconds=1.0) == [0, 1, 60]
