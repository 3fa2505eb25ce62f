"""The audit in the background: recent rows at once, all others in rotation, and a metric for each invariant.

Each step examines the rows written since the step before, once more those that were found broken, and for a bounded
time the next rows of the books, table by table, starting over after the last. Small books are examined as a whole in
each step; large ones cost the same and take longer.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.process.periodic import repeat
from payments_ledger.verify.audit import Result, examine
from payments_ledger.verify.horizon import find_horizon
from payments_ledger.verify.invariant import FAILURES_SHOWN, Invariant, Subject

log = structlog.get_logger(__name__)

INVARIANT_HOLDS = Gauge("ledger_invariant_holds", "1 while no row is known for which it does not hold", ["invariant"])
LAST_RUN = Gauge(
    "ledger_verify_last_run_timestamp_seconds", "When a step of the audit last came to its end", multiprocess_mode="max"
)
EXAMINED = Counter("ledger_verify_examined_total", "Rows examined by the audit in the background", ["invariant"])

# Any number that nothing else in the database uses: workers take turns by it.
AUDIT_LOCK = 7_203_811_407
# A transaction that began before the last step may have committed after it, and clocks of API processes differ.
OVERLAP = timedelta(seconds=60)
# How long a step spends on the rotation, and how many rows of a table it takes at once.
ROTATION_SECONDS = 1.0
PAGE_ROWS = 2000
# So many broken rows of an invariant are examined again; when they are repaired, the rotation finds the others.
REMEMBERED_MAX = 1000

SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "15s",
    # One core is left to requests.
    "max_parallel_workers_per_gather": "0",
}

type Key = tuple[str, ...]
"""The values of a subject's key, as text."""


class Watch:
    """Audits step by step, as the role that reads everything and writes nothing."""

    def __init__(
        self,
        database_url: str,
        invariants: Sequence[Invariant],
        *,
        seconds: float,
        bounds: Mapping[str, int],
    ) -> None:
        """A step every `seconds`; `bounds` are the parameters that the invariants name."""
        self._database = Database(
            database_url, role=auditor_role(database_url), pool_size_max=1, server_settings=SERVER_SETTINGS
        )
        self._invariants = invariants
        self._seconds = seconds
        self._bounds = bounds
        self._examined_until: datetime | None = None
        self._broken: dict[Invariant, dict[Key, Mapping[str, Any]]] = {invariant: {} for invariant in invariants}
        # Where each table continues, the first being the one whose turn it is.
        self._places: dict[Subject, Key] = {}

    async def open(self) -> None:
        """Starts connecting; `run` does so itself."""
        await self._database.open()

    async def close(self) -> None:
        """Closes the connection."""
        await self._database.close()

    async def run(self) -> None:
        """Works until cancelled; waits for the database while it is unavailable."""
        await self.open()
        try:
            # It waits first: a process that starts has more urgent things to do.
            await repeat("audit", self.step, seconds=self._seconds, first_after_seconds=self._seconds)
        finally:
            await self.close()

    async def step(self) -> bool:
        """One transaction, unless another worker audits at the moment: then False."""
        async with self._database.transaction() as conn:
            now = await _take_turn(conn)
            if now is None:
                return False
            if not self._places:
                self._places = await self._random_places(conn)
            parameters = await self._parameters(conn, now)
            # Even if something below takes too long: the rotation comes to whatever is left out.
            self._examined_until = now
            for invariant in self._invariants:
                await self._examine_broken(conn, invariant, parameters)
                await self._examine(conn, invariant, invariant.changed or invariant.subject.changed, parameters)
            await self._rotate(conn, parameters)
        for invariant, broken in self._broken.items():
            INVARIANT_HOLDS.labels(invariant.name).set(not broken)
        LAST_RUN.set_to_current_time()
        return True

    async def _parameters(self, conn: Connection, now: datetime) -> dict[str, Any]:
        since = (self._examined_until or now) - OVERLAP
        return {"since": since, "until": now + OVERLAP, **self._bounds, **asdict(await find_horizon(conn))}

    async def _examine_broken(self, conn: Connection, invariant: Invariant, parameters: Mapping[str, Any]) -> None:
        """Once more the rows that were broken: those that are not any more are forgotten."""
        if not (broken := self._broken[invariant]):
            return
        subject = invariant.subject
        keys = json.dumps([key for key in broken if len(key) == len(subject.key)])
        result = await examine(conn, invariant, subject.among(), {**parameters, "keys": keys}, limit=REMEMBERED_MAX)
        self._broken[invariant] = _by_key(result)
        if not self._broken[invariant]:
            log.info("invariant holds again", invariant=invariant.name)

    async def _rotate(self, conn: Connection, parameters: Mapping[str, Any]) -> None:
        """Continues through the tables, a page of each in turn, until the time is over or each has come to its end."""
        over = time.monotonic() + ROTATION_SECONDS
        unfinished = list(self._places)
        while unfinished and time.monotonic() < over:
            subject = unfinished.pop(0)
            if await self._turn_page(conn, subject, parameters):
                unfinished.append(subject)
            # To the end of the line, also for the next step.
            self._places[subject] = self._places.pop(subject)

    async def _turn_page(self, conn: Connection, subject: Subject, parameters: Mapping[str, Any]) -> bool:
        """Examines the table's next rows; False if those were the last."""
        place = self._places[subject]
        page = {"after": list(place), "page_rows": max(1, PAGE_ROWS // subject.weight)}
        cursor = await conn.execute(subject.last_of_page(len(place)).encode(), page)
        row = await cursor.fetchone()
        self._places[subject] = tuple(row[0]) if row else ()
        if row is None:
            return False
        for invariant in self._invariants:
            if invariant.subject is subject:
                await self._examine(conn, invariant, subject.page(len(place)), {**parameters, **page})
        return True

    async def _examine(
        self, conn: Connection, invariant: Invariant, condition: str, parameters: Mapping[str, Any]
    ) -> None:
        result = await examine(conn, invariant, condition, parameters, limit=REMEMBERED_MAX)
        EXAMINED.labels(invariant.name).inc(result.examined)
        broken = self._broken[invariant]
        if news := {key: found for key, found in _by_key(result).items() if key not in broken}:
            log.error(
                "invariant broken",
                invariant=invariant.name,
                statement=invariant.statement,
                count=result.broken,
                rows=list(news.values())[:FAILURES_SHOWN],
            )
            broken.update(list(news.items())[: REMEMBERED_MAX - len(broken)])

    async def _random_places(self, conn: Connection) -> dict[Subject, Key]:
        """A random tenant to begin with, so that workers that are restarted often come to the last ones, too."""
        cursor = await conn.execute("SELECT tenant_id FROM tenants ORDER BY random() LIMIT 1")
        row = await cursor.fetchone()
        subjects = {invariant.subject for invariant in self._invariants}
        return {subject: tuple(row or ()) if subject.is_of_tenants else () for subject in subjects}


def _by_key(result: Result) -> dict[Key, Mapping[str, Any]]:
    """The failures by the keys of their rows, with which each begins."""
    length = len(result.invariant.subject.key)
    return {tuple(map(str, list(found.values())[:length])): found for found in result.failures}


async def _take_turn(conn: Connection) -> datetime | None:
    """The time by the database's clock, or None while another worker audits; the turn ends with the transaction."""
    cursor = await conn.execute("SELECT now() WHERE pg_try_advisory_xact_lock(%s)", [AUDIT_LOCK])
    row = await cursor.fetchone()
    return row[0] if row else None
