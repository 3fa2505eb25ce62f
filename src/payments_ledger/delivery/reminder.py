"""The reminder: publishes an event again when nothing came of it.

A broker confirms what it has, and can lose it even so: a queue is deleted or purged, a disk is replaced. The event
is still in the outbox.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from payments_ledger.delivery import queries
from payments_ledger.delivery.queries import PublishedEvent
from payments_ledger.postgres.database import Database, transaction_time
from payments_ledger.process.periodic import repeat

log = structlog.get_logger(__name__)

EVENTS_REMINDED = Counter("ledger_outbox_reminded_total", "Events published again since nothing came of them")

# How far a worker looks back when it starts. `payments-ledger verify` reports what is older.
LOOK_BACK = timedelta(days=1)
# A transaction commits within this time, however it is held up. What was looked at later need not be looked at again.
LATE_COMMIT = timedelta(minutes=2)
# The pauses between reminders double up to this.
PAUSE_MAX = timedelta(hours=1)


class Reminder:
    """Looks for published events of one type after which nothing happened to their aggregate."""

    def __init__(
        self, database: Database, event_type: str, *, after_seconds: int, unless: Mapping[str, str] | None = None
    ) -> None:
        """`after_seconds` is how long ago the event was published; the pause doubles with each reminder.

        An event whose body says all of `unless` is not one that anything must follow.
        """
        self._database = database
        self._event_type = event_type
        self._unless = unless or {}
        self._after = timedelta(seconds=after_seconds)
        self._since: datetime | None = None

    async def run(self) -> None:
        """Reminds until cancelled."""
        await repeat("reminder", self.step, seconds=self._after.total_seconds() / 2)

    async def step(self) -> int:
        """One transaction; returns how many events it made due again."""
        async with self._database.transaction() as conn:
            now = await transaction_time(conn)
            since = self._since or now - LOOK_BACK
            unfollowed = await queries.unfollowed_since(conn, self._event_type, since, self._unless)
            forgotten = [event for event in unfollowed if now - event.published_at >= self._pause(event)]
            if forgotten:
                await queries.publish_again(conn, forgotten)
        self._since = min([now - self._after - LATE_COMMIT, *(event.created_at for event in unfollowed)])
        if forgotten:
            log.warning("events published again, nothing came of them", type=self._event_type, number=len(forgotten))
            EVENTS_REMINDED.inc(len(forgotten))
        return len(forgotten)

    def _pause(self, event: PublishedEvent) -> timedelta:
        return min(self._after * 2.0 ** min(event.attempts - 1, 10), max(PAUSE_MAX, self._after))
