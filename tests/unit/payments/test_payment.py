"""The moves of a payment: what is listed is allowed, everything else is refused."""

from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest

from payments_ledger.errors import AlreadyMoved, IllegalMove
from payments_ledger.money import Money
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.payment import Payment

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

ALLOWED = {
    (Status.CREATED, Status.AUTHORIZED),
    (Status.CREATED, Status.FAILED),
    (Status.CREATED, Status.CANCELLED),
    (Status.AUTHORIZED, Status.SETTLED),
    (Status.AUTHORIZED, Status.FAILED),
    (Status.AUTHORIZED, Status.CANCELLED),
}


def payment(status: Status) -> Payment:
    return Payment("t", UUID(int=1), Money(100, "BRL"), status, 3, "CUST-1", None, NOON, NOON)


@pytest.mark.parametrize(("before", "after"), sorted(ALLOWED))
def test_a_listed_move_is_the_next_version(before: Status, after: Status) -> None:
    move, moved = payment(before).move(after, NOON + timedelta(seconds=1))
    assert (moved.status, moved.version, moved.updated_at) == (after, 4, NOON + timedelta(seconds=1))
    assert (move.before, move.after) == (before, after)
    assert moved.money == payment(before).money


@pytest.mark.parametrize(("before", "after"), sorted(set(product(Status, Status)) - ALLOWED))
def test_a_move_that_is_not_listed_is_refused(before: Status, after: Status) -> None:
    with pytest.raises(AlreadyMoved if before is after else IllegalMove):
        payment(before).move(after, NOON)


def test_a_clock_that_was_set_back_does_not_take_a_payment_back_in_time() -> None:
    _, moved = payment(Status.CREATED).move(Status.AUTHORIZED, NOON - timedelta(minutes=10))
    assert moved.updated_at == NOON
