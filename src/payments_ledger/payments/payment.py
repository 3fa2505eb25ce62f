"""A payment and its legal moves: CREATED → AUTHORIZED → SETTLED; FAILED or CANCELLED from the first two."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from payments_ledger.errors import AlreadyMoved, IllegalMove
from payments_ledger.money import Money


class Status(StrEnum):
    CREATED = "CREATED"
    AUTHORIZED = "AUTHORIZED"
    SETTLED = "SETTLED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


# A move that is not listed is refused, here and again by a trigger in the database.
LEGAL_MOVES: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.AUTHORIZED, Status.FAILED, Status.CANCELLED}),
    Status.AUTHORIZED: frozenset({Status.SETTLED, Status.FAILED, Status.CANCELLED}),
    Status.SETTLED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment intent of one tenant; `version` counts its moves from 1 (created)."""

    tenant_id: str
    id: UUID
    money: Money
    status: Status
    version: int
    customer_ref: str
    order_id: str | None
    created_at: datetime
    updated_at: datetime

    def move(self, to: Status, at: datetime) -> "Payment":
        """The payment after a move to another status; raises AlreadyMoved, or IllegalMove when it is not listed.

        A clock that was set back does not take the payment's time back.
        """
        if to is self.status:
            raise AlreadyMoved(f"The payment is {self.status} already.")
        if to not in LEGAL_MOVES[self.status]:
            raise IllegalMove(f"The payment is {self.status} and cannot become {to}.")
        return replace(self, status=to, version=self.version + 1, updated_at=max(at, self.updated_at))
