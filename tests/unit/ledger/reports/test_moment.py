"""An instant is itself; a day begins and ends by the clocks of the tenant's zone."""

from datetime import UTC, date, datetime

import pytest

from payments_ledger.errors import InvalidParameter
from payments_ledger.ledger.reports.moment import BEGINNING, END, Moment, Span, end_of, first_instant

SAO_PAULO = "America/Sao_Paulo"


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("moment", "zone", "first", "end"),
    [
        (at(2026, 3, 31, 12), SAO_PAULO, at(2026, 3, 31, 12), at(2026, 3, 31, 12, 0, 0, 1)),
        (date(2026, 3, 31), "UTC", at(2026, 3, 31), at(2026, 4, 1)),
        (date(2026, 3, 31), SAO_PAULO, at(2026, 3, 31, 3), at(2026, 4, 1, 3)),
        # A day of 25 hours, which ends when the clocks strike midnight for the second time.
        (date(2018, 2, 17), SAO_PAULO, at(2018, 2, 17, 2), at(2018, 2, 18, 3)),
        # A day that begins at 1:00.
        (date(2018, 11, 4), SAO_PAULO, at(2018, 11, 4, 3), at(2018, 11, 5, 2)),
        (date.min, "Asia/Tokyo", BEGINNING, at(1, 1, 1, 14, 41, 1)),
        (date.max, SAO_PAULO, at(9999, 12, 31, 3), END),
        (END, "UTC", END, END),
    ],
)
def test_a_moment_has_a_first_instant_and_one_that_is_beyond(
    moment: Moment, zone: str, first: datetime, end: datetime
) -> None:
    assert first_instant(moment, zone) == first
    assert end_of(moment, zone) == end


def test_a_span_is_up_to_a_moment_or_between_two() -> None:
    assert Span(as_of=date(2026, 3, 31)).bounds("UTC") == (None, at(2026, 4, 1))
    assert Span(date(2026, 3, 1), date(2026, 4, 1)).bounds("UTC") == (at(2026, 3, 1), at(2026, 4, 1))
    assert Span().bounds("UTC") == (None, None)


def test_a_span_is_not_both_and_does_not_end_before_it_begins() -> None:
    with pytest.raises(InvalidParameter, match="as_of goes without from and to"):
        Span(date(2026, 3, 1), None, date(2026, 3, 1))
    with pytest.raises(InvalidParameter, match="from must not be later than to"):
        # The day begins three hours after this instant.
        Span(date(2026, 3, 1), at(2026, 3, 1)).bounds(SAO_PAULO)
