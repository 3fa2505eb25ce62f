"""Who carries messages, RabbitMQ or this process itself: what publishes them, and what brings them to handlers."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from payments_ledger.messaging.memory_bus import MemoryBus
from payments_ledger.messaging.messages import Handler
from payments_ledger.messaging.publisher import Publisher
from payments_ledger.messaging.subscription import Subscription
from payments_ledger.process.settings import MEMORY_URL
from payments_ledger.rabbitmq.consumer import RabbitConsumer
from payments_ledger.rabbitmq.gauges import keep_measuring_queues
from payments_ledger.rabbitmq.publisher import RabbitPublisher


@dataclass(frozen=True, slots=True)
class Transport:
    """`publisher` sends messages; each of `work` is to run until cancelled, beside it, for them to arrive."""

    publisher: Publisher
    work: Sequence[Callable[[], Coroutine[Any, Any, object]]]


def transport_of(
    url: str, exchange: str, subscriptions: Sequence[Subscription], disturb: Callable[[Handler], Handler]
) -> Transport:
    """The URL's scheme picks who carries the messages; `disturb` puts injected faults around a handler.

    In memory the publisher calls the handlers itself. One that fails would hold up the relay, and with it every tenant,
    so handlers are not disturbed there.
    """
    if url.startswith(MEMORY_URL):
        return Transport(MemoryBus(subscriptions), work=())
    queues = [subscription.queue for subscription in subscriptions]
    consumers = [
        RabbitConsumer(url, subscription.queue, _disturbed(subscription.handlers, disturb))
        for subscription in subscriptions
    ]
    return Transport(
        RabbitPublisher(url, exchange, queues),
        work=[*(consumer.run for consumer in consumers), partial(keep_measuring_queues, url, queues)],
    )


def _disturbed(handlers: Mapping[str, Handler], disturb: Callable[[Handler], Handler]) -> dict[str, Handler]:
    return {type_: disturb(handler) for type_, handler in handlers.items()}
