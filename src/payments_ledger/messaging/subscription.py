"""A subscription: a queue, what is bound to it, and the handler of each type of message that it brings."""

from collections.abc import Mapping
from dataclasses import dataclass

from payments_ledger.messaging.messages import Handler


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, the (exchange, routing key) pairs bound to it, and where its dead letters go.

    A message that has to wait does so in a queue beside it, <name>.retry.<delay>, which gives it back in time.
    """

    name: str
    bindings: tuple[tuple[str, str], ...]
    dead_letters: str

    def retry_name(self, seconds: int) -> str:
        return f"{self.name}.retry.{f'{seconds // 60}m' if seconds % 60 == 0 else f'{seconds}s'}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One reader of events. Several may ask for the same type: each has a queue of its own and gets every message."""

    queue: Queue
    handlers: Mapping[str, Handler]
