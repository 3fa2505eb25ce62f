"""A message is tried again in place while the database is unavailable, and given up after so many failures."""

from collections.abc import Callable

import pytest

from payments_ledger.errors import DatabaseUnavailable
from payments_ledger.messaging import handling
from payments_ledger.messaging.handling import (
    ANY_TYPE,
    BODY_BYTES_MAX,
    UNFORESEEN_FAILURES_MAX,
    Route,
    find_handler,
    handle,
    handle_until_done,
)
from payments_ledger.messaging.messages import DeadLetter, Later, Message

pytestmark = pytest.mark.anyio

MESSAGE = Message("1", "it.happened", b"{}", {})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "RETRY_SECONDS", (0.0,))


class Failing:
    """A handler that fails so many times, then succeeds."""

    def __init__(self, failure: Callable[[], Exception], times: int) -> None:
        self._failure, self._times = failure, times
        self.calls = 0

    async def __call__(self, message: Message) -> None:
        self.calls += 1
        if self.calls <= self._times:
            raise self._failure()


async def test_a_message_waits_in_place_for_as_long_as_the_database_is_unavailable() -> None:
    handler = Failing(DatabaseUnavailable, times=20)
    await handle(Route("it.happened", handler), MESSAGE)
    assert handler.calls == 21


async def test_a_message_that_must_wait_is_retried_later_until_its_attempts_are_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 3)
    handler = Failing(lambda: Later("not yet"), times=100)
    with pytest.raises(Later, match="not yet"):
        await handle(Route("it.happened", handler), MESSAGE)
    with pytest.raises(DeadLetter, match="given up after 3 attempts: not yet"):
        await handle_until_done(Route("it.happened", handler), MESSAGE)


async def test_an_unforeseen_failure_is_tried_a_few_times_only() -> None:
    handler = Failing(ZeroDivisionError, times=100)
    with pytest.raises(DeadLetter, match="failed 5 times: ZeroDivisionError"):
        await handle_until_done(Route("it.happened", handler), MESSAGE)
    assert handler.calls == UNFORESEEN_FAILURES_MAX


async def test_a_body_that_is_too_large_is_refused_before_its_handler_sees_it() -> None:
    handler = Failing(ZeroDivisionError, times=0)
    with pytest.raises(DeadLetter, match="bytes"):
        await handle(Route("it.happened", handler), Message("1", "it.happened", b" " * (BODY_BYTES_MAX + 1), {}))
    assert handler.calls == 0


async def test_a_type_without_a_handler_goes_to_the_one_for_any_type_or_is_refused() -> None:
    one, any_other = Failing(ZeroDivisionError, times=0), Failing(ZeroDivisionError, times=0)
    assert find_handler({"it.happened": one, ANY_TYPE: any_other}, "it.happened") == Route("it.happened", one)
    assert find_handler({"it.happened": one, ANY_TYPE: any_other}, "else") == Route(ANY_TYPE, any_other)
    nobody = find_handler({"it.happened": one}, "else")
    assert nobody == Route("unknown", None)
    with pytest.raises(DeadLetter, match=r"no handler for it\.happened"):
        await handle(nobody, MESSAGE)
