"""The bus of the embedded mode: publishing hands a message to every subscription, and waits until all are done."""

import asyncio
from collections.abc import Sequence

from payments_ledger.messaging.handling import Route, handle_until_done
from payments_ledger.messaging.messages import DeadLetter, Message
from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.messaging.subscription import Subscription


class MemoryBus:
    """What RabbitMQ does with bindings and queues, in this process: each subscription gets a message of its types."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions = subscriptions

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        return list(await asyncio.gather(*(self._deliver(message) for message in messages)))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _deliver(self, message: Message) -> Delivery:
        """REFUSED if one subscription refuses it; the others have handled it nevertheless."""
        routes = [
            Route(message.type, subscription.handlers[message.type])
            for subscription in self._subscriptions
            if message.type in subscription.handlers
        ]
        if not routes:
            return Delivery(Fate.UNROUTED)
        reasons = await asyncio.gather(*(_reason_for_refusal(route, message) for route in routes))
        refusal = "; ".join(filter(None, reasons))
        return Delivery(Fate.REFUSED, refusal) if refusal else Delivery(Fate.ROUTED)


async def _reason_for_refusal(route: Route, message: Message) -> str | None:
    try:
        await handle_until_done(route, message)
    except DeadLetter as error:
        return str(error)
    return None
