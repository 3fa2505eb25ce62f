"""Every error has a message, a code and an HTTP status."""

from http import HTTPStatus

import pytest

from payments_ledger import errors
from payments_ledger.errors import LedgerError
from payments_ledger.web.problems import status_of


def all_errors(kind: type[LedgerError] = LedgerError) -> list[type[LedgerError]]:
    return [error for child in kind.__subclasses__() for error in (child, *all_errors(child))]


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_has_a_message_a_code_and_a_status(kind: type[LedgerError]) -> None:
    error = kind.__new__(kind)
    LedgerError.__init__(error)
    assert error.detail
    assert error.detail[-1] in ".?"
    assert kind.code.islower()
    assert status_of(error) >= HTTPStatus.BAD_REQUEST


def test_the_code_is_the_name_in_words() -> None:
    assert errors.PaymentNotFound.code == "payment_not_found"
    assert str(errors.PaymentNotFound()) == "There is no payment intent with this id."


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))
