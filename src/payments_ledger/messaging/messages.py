"""The vocabulary of messaging: a message, who handles it, and how it can fail."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from payments_ledger.errors import DependencyUnavailable


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way: `id` is the event's id, `type` its routing key, `body` flat JSON.

    `failures` counts the attempts to handle it that came before; `is_needed` says whether it must reach a queue.
    """

    id: str
    type: str
    body: bytes
    headers: Mapping[str, str]
    failures: int = 0
    is_needed: bool = True


class DeadLetter(Exception):
    """Raised by a handler for a message that can never succeed; its text is the reason."""


class Later(Exception):
    """Raised by a handler for a message that has to wait for something of its own; its text says for what."""


type Handler = Callable[[Message], Awaitable[None]]
"""Handles one message; returns once its effect is committed.

Raises DeadLetter (never again), Later (the message is put aside) or Unavailable (it is tried again at once).
"""


class BrokerUnavailable(DependencyUnavailable):
    """The broker cannot be reached or does not respond; any of the messages being published may have been delivered."""
