"""The in-process bus: publishing ends when the handler is done."""

import pytest

from payments_ledger.errors import DatabaseUnavailable
from payments_ledger.messaging import messages as messaging
from payments_ledger.messaging.messages import DeadLetter, Delivery, Fate, MemoryBus, Message

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "RETRY_SECONDS", (0.0,))


def message(type_: str = "it.happened") -> Message:
    return Message("1", type_, b"{}", {})


async def test_a_message_is_routed_once_its_handler_is_done() -> None:
    handled = []

    async def handle(message: Message) -> None:
        handled.append(message)

    assert await MemoryBus({"it.happened": handle}).publish([message()]) == [Delivery(Fate.ROUTED)]
    assert handled == [message()]


async def test_a_message_that_nobody_handles_is_unrouted() -> None:
    assert await MemoryBus({}).publish([message()]) == [Delivery(Fate.UNROUTED)]


async def test_a_message_that_cannot_succeed_is_refused_with_its_reason() -> None:
    async def handle(message: Message) -> None:
        raise DeadLetter("not today")

    assert await MemoryBus({"it.happened": handle}).publish([message()]) == [Delivery(Fate.REFUSED, "not today")]


async def test_a_passing_failure_is_tried_until_it_has_passed() -> None:
    failures = iter([DatabaseUnavailable()] * 20)

    async def handle(message: Message) -> None:
        for failure in failures:
            raise failure

    assert await MemoryBus({"it.happened": handle}).publish([message()]) == [Delivery(Fate.ROUTED)]


async def test_an_unforeseen_failure_is_tried_a_few_times_only() -> None:
    calls = 0

    async def handle(message: Message) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    [delivery] = await MemoryBus({"it.happened": handle}).publish([message()])
    assert delivery.fate is Fate.REFUSED
    assert calls == messaging.UNFORESEEN_FAILURES_MAX
