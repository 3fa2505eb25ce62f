"""The life of a payment: its moves and its facts, each with the event and the audit action that tell of it.

    (new) ──▶ CREATED ──▶ AUTHORIZED (capture) ──▶ SETTLED (refunds)
                 └──────────┴──▶ FAILED or CANCELLED

This is the one place in Python that lists the moves. The table `payment_moves` in PostgreSQL has the same rows, and its
trigger refuses every other move; a test compares the two. A fact leaves the payment where it stands.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a payment stands; SETTLED, FAILED and CANCELLED are final."""

    CREATED = "CREATED"
    AUTHORIZED = "AUTHORIZED"
    SETTLED = "SETTLED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


# The events that somebody waits for: the worker settles what is authorized, or captured if that is manual, and the
# orders service takes note of what is settled.
PAYMENT_AUTHORIZED = "payment.authorized"
PAYMENT_CAPTURE_REQUESTED = "payment.capture_requested"
PAYMENT_SETTLED = "payment.settled"


@dataclass(frozen=True, slots=True)
class Move:
    """One legal move; `before` is None for the move that makes a payment.

    `event` is the type of the event that is published (its routing key), `action` the verb phrase in the audit log.
    """

    before: Status | None
    after: Status
    event: str
    action: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happens to a payment while it is in a status, and does not move it."""

    status: Status
    event: str
    action: str


CREATION = Move(None, Status.CREATED, "payment.intent.created", "payment.create")

MOVES = (
    CREATION,
    Move(Status.CREATED, Status.AUTHORIZED, PAYMENT_AUTHORIZED, "payment.authorize"),
    Move(Status.AUTHORIZED, Status.SETTLED, PAYMENT_SETTLED, "payment.settle"),
    Move(Status.CREATED, Status.FAILED, "payment.failed", "payment.fail"),
    Move(Status.AUTHORIZED, Status.FAILED, "payment.failed", "payment.fail"),
    Move(Status.CREATED, Status.CANCELLED, "payment.cancelled", "payment.cancel"),
    Move(Status.AUTHORIZED, Status.CANCELLED, "payment.cancelled", "payment.cancel"),
)

CAPTURE = Fact(Status.AUTHORIZED, PAYMENT_CAPTURE_REQUESTED, "payment.capture")
REFUND = Fact(Status.SETTLED, "payment.refunded", "payment.refund")
FACTS = (CAPTURE, REFUND)

_MOVE_BY_STATUSES = {(move.before, move.after): move for move in MOVES}


def find_move(before: Status | None, after: Status) -> Move | None:
    """The row that permits the move, or None where it is illegal."""
    return _MOVE_BY_STATUSES.get((before, after))
