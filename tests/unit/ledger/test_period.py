"""A period is split into whole UTC days and remainders that together are the period, without a gap or an overlap."""

from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.errors import InvalidParameter
from payments_ledger.ledger.period import Period, SplitPeriod, split_by_day

# Four days around the turn of the year, by the minute, so that midnights are met.
instants = st.integers(min_value=0, max_value=4 * 24 * 60).map(
    lambda minutes: datetime(2025, 12, 30, tzinfo=UTC) + timedelta(minutes=minutes)
)


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "split"),
    [
        (Period(None, None), SplitPeriod(None, None, ())),
        (Period(at(1), at(3)), SplitPeriod(date(2026, 1, 1), date(2026, 1, 3), ())),
        (Period(at(1, 6), None), SplitPeriod(date(2026, 1, 2), None, ((at(1, 6), at(2)),))),
        (Period(None, at(1, 6)), SplitPeriod(None, date(2026, 1, 1), ((at(1), at(1, 6)),))),
        (
            Period(at(1, 6), at(3, 6)),
            SplitPeriod(date(2026, 1, 2), date(2026, 1, 3), ((at(1, 6), at(2)), (at(3), at(3, 6)))),
        ),
        (Period(at(1, 6), at(1, 7)), SplitPeriod(date(2026, 1, 1), date(2026, 1, 1), ((at(1, 6), at(1, 7)),))),
        (
            Period(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3))), None),
            SplitPeriod(date(2026, 1, 2), None, ((at(1, 3), at(2)),)),
        ),
    ],
)
def test_a_period_is_split_at_midnight_utc(period: Period, split: SplitPeriod) -> None:
    assert split_by_day(period) == split


@pytest.mark.parametrize("end", [None, datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)])
def test_the_last_day_of_the_calendar_has_no_day_after_it(end: datetime | None) -> None:
    start = datetime(9999, 12, 31, 0, 0, 0, 1, tzinfo=UTC)
    last = datetime.max.replace(tzinfo=UTC)
    assert split_by_day(Period(start, end)) == SplitPeriod(date.max, date.max, ((start, last),))


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InvalidParameter) as refusal:
        Period(at(2), at(1))
    assert [fault.parameter for fault in refusal.value.faults] == ["from"]


@given(st.none() | instants, st.none() | instants, instants)
def test_an_instant_is_counted_once_exactly_when_it_lies_in_the_period(
    start: datetime | None, end: datetime | None, instant: datetime
) -> None:
    if start and end and start > end:
        start, end = end, start
    split = split_by_day(Period(start, end))
    day = instant.date()
    in_days = (split.first_day is None or split.first_day <= day) and (split.end_day is None or day < split.end_day)
    in_rests = [starts <= instant < ends for starts, ends in split.remainders]
    expected = (start is None or start <= instant) and (end is None or instant < end)
    assert in_days + sum(in_rests) == expected
    assert all(edge.time() == time.min or edge in (start, end) for remainder in split.remainders for edge in remainder)
