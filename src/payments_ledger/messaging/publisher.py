"""Whoever publishes messages, to RabbitMQ or within this process, and what becomes of each message."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from payments_ledger.messaging.messages import Message


class Fate(Enum):
    """What became of a message that was published."""

    ROUTED = "routed"
    UNROUTED = "unrouted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one message; `reason` is empty where it was routed."""

    fate: Fate
    reason: str = ""


class Publisher(Protocol):
    """The relay's way to whoever consumes: over RabbitMQ, or within this process."""

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        """What became of each message, once that is sure; raises BrokerUnavailable."""
        ...

    async def close(self) -> None: ...
