"""A statement of an account as a value: lines in the order of their time, each with the balance after it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import accumulate
from typing import Self
from uuid import UUID

from payments_ledger.errors import InvalidCursor
from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.reports.moment import BEGINNING


class By(StrEnum):
    """Which of the two times of an entry orders and bounds a statement."""

    EFFECTIVE = "effective"
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a line stands: its time, when it was recorded, its entry, and its posting there."""

    at: datetime
    recorded_at: datetime
    entry_id: UUID
    position: int

    @classmethod
    def before_all(cls, start: datetime | None) -> Self:
        """Before every line from `start` on."""
        return cls(start or BEGINNING, BEGINNING, UUID(int=0), 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One side of one posting. `amount` is in minor units; `balance` too, on the normal side, after this line.

    `source_id` is the transaction if the entry is one's (`is_transaction`), else the payment.
    """

    entry_id: UUID
    position: int
    side: Side
    amount: int
    recorded_at: datetime
    effective_at: datetime
    book_date: date
    source_id: UUID
    is_transaction: bool
    description: str | None
    reference: str | None
    balance: int = 0

    def place(self, by: By) -> Place:
        """Where it stands in a statement by this time."""
        at = self.effective_at if by is By.EFFECTIVE else self.recorded_at
        return Place(at, self.recorded_at, self.entry_id, self.position)


def with_balances(lines: Iterable[Line], opening: int, normal_side: Side) -> list[Line]:
    """The lines with their running balances, which begin with the opening balance."""
    lines = list(lines)
    changes = (line.amount if line.side is normal_side else -line.amount for line in lines)
    balances = accumulate(changes, initial=opening)
    next(balances)
    return [replace(line, balance=balance) for line, balance in zip(lines, balances, strict=True)]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a page leaves to the next: the account, the place of its last line, and the balance after it.

    So a page needs no sum over what came before. The text is signed where it leaves this program.
    """

    account: str
    place: Place
    balance: int

    def as_text(self) -> str:
        """A text for `read`."""
        place = self.place
        times = place.at.isoformat(), place.recorded_at.isoformat()
        return " ".join((self.account, *times, str(place.entry_id), str(place.position), str(self.balance)))

    @classmethod
    def read(cls, text: str, account: str) -> Self:
        """Of a text that `as_text` made; raises InvalidCursor if it is of another account."""
        code, at, recorded_at, entry_id, position, balance = text.split(" ")
        if code != account:
            raise InvalidCursor
        place = Place(datetime.fromisoformat(at), datetime.fromisoformat(recorded_at), UUID(entry_id), int(position))
        return cls(code, place, int(balance))
