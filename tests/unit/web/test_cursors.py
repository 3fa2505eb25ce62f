"""A cursor is a position that only we can write."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from payments_ledger.errors import InvalidCursor
from payments_ledger.web.cursors import CursorSigner

SIGNER = CursorSigner("secret")


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_position_is_read_back_exactly(instant: datetime, row_id: UUID) -> None:
    assert SIGNER.read("entries a", SIGNER.write("entries a", instant, row_id)) == (instant, row_id)


positions = st.tuples(st.datetimes(timezones=st.just(UTC)), st.uuids())


@given(positions, st.integers(min_value=0))
def test_no_bit_of_a_cursor_can_be_changed(position: tuple[datetime, UUID], number: int) -> None:
    cursor = bytearray(base64.urlsafe_b64decode(SIGNER.write("entries a", *position)))
    number %= 8 * len(cursor)
    cursor[number // 8] ^= 1 << number % 8
    with pytest.raises(InvalidCursor):
        SIGNER.read("entries a", base64.urlsafe_b64encode(cursor).decode())


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_whatever_is_made_up_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        SIGNER.read("entries a", cursor)


@given(positions, st.text(), st.text())
def test_what_was_made_for_one_purpose_serves_no_other(position: tuple[datetime, UUID], made: str, used: str) -> None:
    assume(made != used)
    with pytest.raises(InvalidCursor):
        SIGNER.read(used, SIGNER.write(made, *position))


CURSOR = SIGNER.write("entries a", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1))
CHANGED = base64.urlsafe_b64encode(
    bytes([base64.urlsafe_b64decode(CURSOR)[0] ^ 1]) + base64.urlsafe_b64decode(CURSOR)[1:]
)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!",
        CURSOR[:-2],
        CURSOR + "AAAA",
        CHANGED.decode(),
        base64.urlsafe_b64encode(bytes(36)).decode(),
        "é" * 48,
    ],
)
def test_a_forged_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        SIGNER.read("entries a", cursor)


def test_a_cursor_fits_only_the_list_that_it_was_made_for() -> None:
    with pytest.raises(InvalidCursor):
        SIGNER.read("entries b", CURSOR)
    with pytest.raises(InvalidCursor):
        CursorSigner("another").read("entries a", CURSOR)


@given(st.text())
def test_a_position_of_text_is_read_back_exactly(text: str) -> None:
    cursor = SIGNER.write_text("accounts a", text)
    assert SIGNER.read_text("accounts a", cursor) == text
    with pytest.raises(InvalidCursor):
        SIGNER.read_text("accounts b", cursor)
