"""The in-process bus: every subscription gets a message, and publishing ends when all of them are done."""

import pytest

from payments_ledger.messaging.memory_bus import MemoryBus
from payments_ledger.messaging.messages import DeadLetter, Handler, Message
from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.messaging.subscription import Queue, Subscription

pytestmark = pytest.mark.anyio


def message(type_: str = "it.happened") -> Message:
    return Message("1", type_, b"{}", {})


def subscription(name: str, **handlers: Handler) -> Subscription:
    """A subscription to types whose dots are written as underscores."""
    queue = Queue(name, (), f"{name}.dlq")
    return Subscription(queue, {type_.replace("_", "."): handler for type_, handler in handlers.items()})


async def test_a_message_is_routed_once_its_handler_is_done() -> None:
    handled = []

    async def handle(message: Message) -> None:
        handled.append(message)

    bus = MemoryBus([subscription("readers", it_happened=handle)])
    assert await bus.publish([message()]) == [Delivery(Fate.ROUTED)]
    assert handled == [message()]


async def test_a_message_that_nobody_handles_is_unrouted() -> None:
    assert await MemoryBus([]).publish([message()]) == [Delivery(Fate.UNROUTED)]


async def test_a_message_that_cannot_succeed_is_refused_with_its_reason() -> None:
    async def handle(message: Message) -> None:
        raise DeadLetter("not today")

    bus = MemoryBus([subscription("readers", it_happened=handle)])
    assert await bus.publish([message()]) == [Delivery(Fate.REFUSED, "not today")]


async def test_two_subscriptions_to_one_type_both_get_each_message() -> None:
    seen: list[str] = []

    def noting(name: str) -> Handler:
        async def handle(message: Message) -> None:
            seen.append(name)

        return handle

    bus = MemoryBus(
        [
            subscription("first", it_happened=noting("first")),
            subscription("second", it_happened=noting("second"), it_ended=noting("never")),
        ]
    )
    assert await bus.publish([message()]) == [Delivery(Fate.ROUTED)]
    assert sorted(seen) == ["first", "second"]


async def test_what_one_subscription_refuses_reaches_the_others_and_is_refused_with_its_reason() -> None:
    handled: list[Message] = []

    async def refuse(message: Message) -> None:
        raise DeadLetter("not mine")

    async def handle(message: Message) -> None:
        handled.append(message)

    bus = MemoryBus([subscription("first", it_happened=refuse), subscription("second", it_happened=handle)])
    assert await bus.publish([message()]) == [Delivery(Fate.REFUSED, "not mine")]
    assert handled == [message()]
