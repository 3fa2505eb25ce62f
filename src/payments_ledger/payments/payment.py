"""A payment intent as a value, and the one way in which its status changes."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from payments_ledger.errors import AlreadyMoved, IllegalMove
from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Move, Status, find_move


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

    def move(self, to: Status, at: datetime) -> "tuple[Move, Payment]":
        """The move to another status, and the payment after it; raises AlreadyMoved, or IllegalMove.

        A clock that was set back does not take the payment's time back.
        """
        if to is self.status:
            raise AlreadyMoved(f"The payment is {self.status} already.")
        move = find_move(self.status, to)
        if move is None:
            raise IllegalMove(f"The payment is {self.status} and cannot become {to}.")
        return move, replace(self, status=to, version=self.version + 1, updated_at=max(at, self.updated_at))
