"""A period of time split into whole UTC days, which the totals answer, and the remainder, which the postings answer."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from payments_ledger.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (inclusive) to `end` (exclusive), both with a zone; None is unbounded. Raises InvalidParameter."""

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if self.start and self.end and self.start > self.end:
            raise InvalidParameter("from", "from must not be later than to.")

    def before(self, after: tuple[datetime, UUID] | None) -> tuple[datetime | None, UUID]:
        """The position (instant, id) that what follows `after` in a list, newest first, must come before.

        One upper bound, where an index scan begins: with two it begins at the later one and reads what lies between.
        """
        ends = [(self.end, UUID(int=0))] if self.end else []
        return min([*ends, *([after] if after else [])], default=(None, UUID(int=0)))


@dataclass(frozen=True, slots=True)
class SplitPeriod:
    """Whole days from `first_day` (inclusive) to `end_day` (exclusive), None being unbounded, and the `remainders`."""

    first_day: date | None
    end_day: date | None
    remainders: tuple[tuple[datetime, datetime], ...]


def split_by_day(period: Period) -> SplitPeriod:
    """The period as whole days and at most two remainders, one before the first whole day and one after the last."""
    if period.start and period.start > _midnight(date.max):
        # No whole day follows on the calendar.
        return SplitPeriod(date.max, date.max, ((period.start, period.end or datetime.max.replace(tzinfo=UTC)),))
    first_day = _first_whole_day(period.start) if period.start else None
    end_day = period.end.astimezone(UTC).date() if period.end else None
    if period.start and period.end and first_day and end_day and first_day > end_day:
        # No whole day lies in between: both ends fall on one day.
        return SplitPeriod(end_day, end_day, ((period.start, period.end),))
    remainders: list[tuple[datetime, datetime]] = []
    if period.start and first_day and period.start < _midnight(first_day):
        remainders.append((period.start, _midnight(first_day)))
    if period.end and end_day and _midnight(end_day) < period.end:
        remainders.append((_midnight(end_day), period.end))
    return SplitPeriod(first_day, end_day, tuple(remainders))


def _first_whole_day(instant: datetime) -> date:
    day = instant.astimezone(UTC).date()
    return day if _midnight(day) == instant else day + timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
