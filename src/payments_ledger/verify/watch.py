"""The audit in the background: what was written lately at once, everything else in turn, and a metric that tells.

Each step looks at the rows written since the step before, once more at those that were found broken, and for a bounded
time at the next rows of the books, table by table, beginning anew after the last. Small books are looked at as a whole
in each step; large ones cost the same and take longer.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.process.periodic import repeat
from payments_ledger.verify.audit import AUTHORIZED_SECONDS_MAX, Result, look
from payments_ledger.verify.checks import CHECKS, FAILURES_SHOWN, TOTALS, Check, Subject
from payments_ledger.verify.horizon import find_horizon

log = structlog.get_logger(__name__)

INVARIANT_HOLDS = Gauge("ledger_invariant_holds", "1 while no row is known for which it does not hold", ["invariant"])
LAST_RUN = Gauge(
    "ledger_verify_last_run_timestamp_seconds", "When a step of the audit last came to its end", multiprocess_mode="max"
)
EXAMINED = Counter("ledger_verify_examined_total", "Rows looked at by the audit in the background", ["invariant"])

# Any number, as long as nobody else in the database uses it: two workers take turns by it.
AUDIT_LOCK = 7_203_811_407
# A transaction that began before the last step may have committed after it, and clocks of API processes differ.
OVERLAP = timedelta(seconds=60)
# How long a step goes on through the books, and how many rows of a table it takes at once.
ROTATION_SECONDS = 1.0
PAGE_ROWS = 2000
# A total is the sum of a day's postings, of which there may be a million.
PAGE_TOTALS = 20
# So many broken rows of a check are looked at again; when they are repaired, the rotation finds the others.
REMEMBERED_MAX = 1000

SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "15s",
    # One core is left to those who pay.
    "max_parallel_workers_per_gather": "0",
}

type Key = tuple[str, ...]
"""The values of a subject's key, as text."""


class Watch:
    """Audits step by step, as the role that reads everything and writes nothing."""

    def __init__(
        self,
        database_url: str,
        *,
        seconds: float,
        answers_seconds: int,
        authorized_seconds_max: int = AUTHORIZED_SECONDS_MAX,
    ) -> None:
        """A step every `seconds`; idempotency keys are kept for `answers_seconds`."""
        self._database = Database(
            database_url, role=auditor_role(database_url), pool_size_max=1, server_settings=SERVER_SETTINGS
        )
        self._seconds = seconds
        self._answers_seconds = answers_seconds
        self._authorized_seconds_max = authorized_seconds_max
        self._looked_until: datetime | None = None
        self._broken: dict[Check, dict[Key, Mapping[str, Any]]] = {check: {} for check in CHECKS}
        # Where each table goes on, the first being the one whose turn it is.
        self._places: dict[Subject, Key] = {}

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def run(self) -> None:
        """Works until cancelled; waits for the database when it is away."""
        await self.open()
        try:
            # First of all it waits: a process that starts has more urgent things to do.
            await repeat("audit", self.step, seconds=self._seconds, first_after_seconds=self._seconds)
        finally:
            await self.close()

    async def step(self) -> bool:
        """One transaction, unless another worker is at it: then False."""
        async with self._database.transaction() as conn:
            now = await _take_turn(conn)
            if now is None:
                return False
            if not self._places:
                self._places = await _places_at_random(conn)
            parameters = await self._parameters(conn, now)
            # Even if something below takes too long: the rotation comes to whatever is left out.
            self._looked_until = now
            for check in CHECKS:
                await self._look_again(conn, check, parameters)
                await self._look(conn, check, check.changed or check.subject.changed, parameters)
            await self._go_on(conn, parameters)
        for check, broken in self._broken.items():
            INVARIANT_HOLDS.labels(check.name).set(not broken)
        LAST_RUN.set_to_current_time()
        return True

    async def _parameters(self, conn: Connection, now: datetime) -> dict[str, Any]:
        since = (self._looked_until or now) - OVERLAP
        waiting = timedelta(seconds=self._authorized_seconds_max)
        return {
            "since": since,
            "since_id": _first_id(since),
            "waiting_since_id": _first_id(since - waiting),
            "waiting_until_id": _first_id(now - waiting + OVERLAP),
            "authorized_seconds_max": self._authorized_seconds_max,
            "answers_seconds": self._answers_seconds,
            **asdict(await find_horizon(conn)),
        }

    async def _look_again(self, conn: Connection, check: Check, parameters: Mapping[str, Any]) -> None:
        """At the rows that were broken: those that are not any more are forgotten."""
        if not (broken := self._broken[check]):
            return
        keys = json.dumps([key for key in broken if len(key) == len(check.subject.key)])
        result = await look(conn, check, check.subject.among(), {**parameters, "keys": keys}, limit=REMEMBERED_MAX)
        self._broken[check] = _by_key(result)
        if not self._broken[check]:
            log.info("invariant holds again", invariant=check.name)

    async def _go_on(self, conn: Connection, parameters: Mapping[str, Any]) -> None:
        """Through the tables, a page of each in turn, until the time is over or each has come to its end."""
        over = time.monotonic() + ROTATION_SECONDS
        unfinished = list(self._places)
        while unfinished and time.monotonic() < over:
            subject = unfinished.pop(0)
            if await self._turn_page(conn, subject, parameters):
                unfinished.append(subject)
            # To the end of the line, also for the next step.
            self._places[subject] = self._places.pop(subject)

    async def _turn_page(self, conn: Connection, subject: Subject, parameters: Mapping[str, Any]) -> bool:
        """Looks at the table's next rows; False if those were the last."""
        place = self._places[subject]
        page = {"after": list(place), "page_rows": PAGE_TOTALS if subject is TOTALS else PAGE_ROWS}
        cursor = await conn.execute(subject.last_of_page(len(place)).encode(), page)
        row = await cursor.fetchone()
        self._places[subject] = tuple(row[0]) if row else ()
        if row is None:
            return False
        for check in CHECKS:
            if check.subject is subject:
                await self._look(conn, check, subject.page(len(place)), {**parameters, **page})
        return True

    async def _look(self, conn: Connection, check: Check, condition: str, parameters: Mapping[str, Any]) -> None:
        result = await look(conn, check, condition, parameters, limit=REMEMBERED_MAX)
        EXAMINED.labels(check.name).inc(result.examined)
        broken = self._broken[check]
        if news := {key: found for key, found in _by_key(result).items() if key not in broken}:
            log.error(
                "invariant broken",
                invariant=check.name,
                statement=check.statement,
                count=result.broken,
                rows=list(news.values())[:FAILURES_SHOWN],
            )
            broken.update(list(news.items())[: REMEMBERED_MAX - len(broken)])


def _by_key(result: Result) -> dict[Key, Mapping[str, Any]]:
    """The failures by the keys of their rows, with which each begins."""
    length = len(result.check.subject.key)
    return {tuple(map(str, list(found.values())[:length])): found for found in result.failures}


async def _take_turn(conn: Connection) -> datetime | None:
    """The time by the database's clock, or None while another worker audits; the turn ends with the transaction."""
    cursor = await conn.execute("SELECT now() WHERE pg_try_advisory_xact_lock(%s)", [AUDIT_LOCK])
    row = await cursor.fetchone()
    return row[0] if row else None


async def _places_at_random(conn: Connection) -> dict[Subject, Key]:
    """A tenant to begin with, so that workers that are restarted often come to the last ones, too."""
    cursor = await conn.execute("SELECT tenant_id FROM tenants ORDER BY random() LIMIT 1")
    row = await cursor.fetchone()
    return {check.subject: tuple(row or ()) if check.subject.is_of_tenants else () for check in CHECKS}


def _first_id(instant: datetime) -> UUID:
    """The least UUIDv7 (RFC 9562) of the instant."""
    milliseconds = int(instant.timestamp() * 1000)
    return UUID(int=milliseconds << 80)
