"""Times that a reader asks for: an instant, or a day in the tenant's zone."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from payments_ledger.errors import InvalidParameter

type Moment = datetime | date
"""An instant with a zone, or a day of the tenant's."""

BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)
# The resolution of PostgreSQL's times.
_TICK = timedelta(microseconds=1)


def first_instant(moment: Moment, zone: str) -> datetime:
    """The instant itself, or the first one of the day."""
    if isinstance(moment, datetime):
        return moment
    try:
        return datetime.combine(moment, time.min, ZoneInfo(zone)).astimezone(UTC)
    except OverflowError:
        return BEGINNING if moment.year == 1 else END


def end_of(moment: Moment, zone: str) -> datetime:
    """The first instant after the moment: a day ends with its last instant, an instant is included."""
    try:
        if isinstance(moment, datetime):
            return moment + _TICK
        return first_instant(moment + timedelta(days=1), zone)
    except OverflowError:
        return END


@dataclass(frozen=True, slots=True)
class Span:
    """What of the books a reader wants, by the effective time: up to and with `as_of`, or from `start` to `end`.

    `start` is inclusive, `end` exclusive; None is no bound. Raises InvalidParameter.
    """

    start: Moment | None = None
    end: Moment | None = None
    as_of: Moment | None = None

    def __post_init__(self) -> None:
        if self.as_of is not None and (self.start is not None or self.end is not None):
            raise InvalidParameter("as_of", "as_of goes without from and to.")

    def bounds(self, zone: str) -> tuple[datetime | None, datetime | None]:
        """The first instant, and the first one that is beyond; raises InvalidParameter."""
        if self.as_of is not None:
            return None, end_of(self.as_of, zone)
        start = None if self.start is None else first_instant(self.start, zone)
        end = None if self.end is None else first_instant(self.end, zone)
        if start and end and start > end:
            raise InvalidParameter("from", "from must not be later than to.")
        return start, end
