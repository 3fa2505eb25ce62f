"""Retention: outbox and audit log are divided by month; months are made ahead, and dropped when they are old."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime, timedelta

import structlog
from psycopg import sql

from payments_ledger.postgres.database import Connection, Database, acting_as, transaction_time
from payments_ledger.postgres.roles import relay_role
from payments_ledger.process.periodic import repeat

log = structlog.get_logger(__name__)

OUTBOX = "outbox_events"
AUDIT_LOG = "audit_log"

# Each month costs every look for due events some 40 µs. Should no worker run until the next one is over, its rows go to
# the partition for the rest, and move to their month once that is made.
MONTHS_AHEAD = 1
# Of what lies in the rest so many blocks of 8 KB are copied in one transaction: some thousands of rows, in a fraction
# of a second. Only these rows are locked meanwhile, so it does no harm on a disk where it takes much longer.
PORTION_BLOCKS = 100
PORTION_SECONDS_MAX = 60
STEP_SECONDS = 3600.0
# After a step that found the tables in use.
RETRY_SECONDS = 60.0

# Any number, as long as nothing else in the database uses it: of several workers only one does the work.
RETENTION_LOCK = 7_203_811_408

# Making or dropping a partition needs the table to itself. Whoever needs it next queues behind us, so we wait briefly.
SERVER_SETTINGS = {"lock_timeout": "1s"}


class Retention:
    """Makes and drops the months of both tables, as their owner: the runtime roles can do neither."""

    def __init__(self, database_url: str, *, outbox_days: int, audit_days: int) -> None:
        """Rows are kept for so many days at least, and until their month is over; with 0 for ever."""
        self._database = Database(database_url, role=None, pool_size_max=1, server_settings=SERVER_SETTINGS)
        self._relay_role = relay_role(database_url)
        self._days = {OUTBOX: outbox_days, AUDIT_LOG: audit_days}

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def run(self) -> None:
        """Works until cancelled; waits while the database is unavailable or the tables are in use."""
        await self.open()
        try:
            await repeat("retention", self.step, seconds=STEP_SECONDS, retry_seconds=RETRY_SECONDS)
        finally:
            await self.close()

    async def step(self) -> None:
        """Each table by itself, in short transactions; does nothing while another worker does this work."""
        with suppress(_TurnTaken):
            for table, days in self._days.items():
                made = await self._make_months(table)
                dropped = await self._drop_old(table, days) if days else []
                if made or dropped:
                    log.info("months made and dropped", table=table, made=made, dropped=dropped)

    async def _make_months(self, table: str) -> int:
        async with self._turn() as conn:
            cursor = await conn.execute("SELECT * FROM missing_months(%s, %s)", [table, MONTHS_AHEAD])
            missing = [month for (month,) in await cursor.fetchall()]
        for month in missing:
            async with self._turn() as conn:
                cursor = await conn.execute("SELECT add_month(%s, %s)", [table, month])
                [(is_made,)] = await cursor.fetchall()
            if not is_made:
                await self._divide_rest(table, month)
        return len(missing)

    async def _divide_rest(self, table: str, month: date | None, *, expired: datetime | None = None) -> None:
        """Replaces `_rest` by the month (None: none) and what remains; published events of before `expired` go."""
        async with self._turn() as conn:
            cursor = await conn.execute("SELECT begin_division(%s, %s)", [table, month])
            [(blocks,)] = await cursor.fetchall()
        for block in range(0, blocks, PORTION_BLOCKS):
            async with self._turn() as conn:
                await conn.execute("SELECT set_config('statement_timeout', %s, true)", [f"{PORTION_SECONDS_MAX}s"])
                await conn.execute(
                    "SELECT copy_rest(%s, %s, %s, %s, %s)", [table, month, block, block + PORTION_BLOCKS, expired]
                )
        async with self._turn() as conn:
            await conn.execute("SELECT end_division(%s, %s)", [table, month])

    async def _drop_old(self, table: str, days: int) -> list[str]:
        """Drops the months that ended before, but none with an event that was never published; returns their names."""
        dropped = []
        async with self._turn() as conn:
            until = await transaction_time(conn) - timedelta(days=days)
            cursor = await conn.execute(
                "SELECT partition FROM months_of(%s) WHERE ends <= %s ORDER BY ends", [table, until]
            )
            for (month,) in await cursor.fetchall():
                if await self._is_needed(conn, table, month):
                    log.warning("month not dropped: an event in it was never published", table=table, month=month)
                    continue
                # The whole table first, as everybody takes its locks. From here on no event of it is made due again.
                await conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
                if not await self._is_needed(conn, table, month):
                    await conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(month)))
                    dropped.append(month)
        if table == OUTBOX:
            await self._drop_late_events(until)
        return dropped

    async def _drop_late_events(self, until: datetime) -> None:
        """Those of payments whose month is gone, a refund for one. As whole months, so that it is done once a month."""
        expired = until.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        async with self._turn() as conn:
            [(has_expired,)] = await (await conn.execute("SELECT rest_has_expired(%s)", [expired])).fetchall()
        if has_expired:
            await self._divide_rest(OUTBOX, None, expired=expired)

    async def _is_needed(self, conn: Connection, table: str, month: str) -> bool:
        """Whether an event of the month was never published, of whichever tenant: the relay sees them all."""
        if table != OUTBOX:
            return False
        cursor = await conn.execute(
            """
            SELECT CASE starts WHEN '-infinity' THEN first_id_of('epoch') ELSE first_id_of(starts) END,
                   first_id_of(ends)
            FROM months_of(%s) WHERE partition = %s
            """,
            [table, month],
        )
        [(first, after)] = await cursor.fetchall()
        async with acting_as(conn, self._relay_role):
            cursor = await conn.execute(
                # Two halves, each with an index of its own.
                """
                (SELECT FROM outbox_events WHERE aggregate_id >= %(first)s AND aggregate_id < %(after)s
                     AND published_at IS NULL AND buried_at IS NULL LIMIT 1)
                UNION ALL
                (SELECT FROM outbox_events WHERE aggregate_id >= %(first)s AND aggregate_id < %(after)s
                     AND published_at IS NULL AND buried_at IS NOT NULL LIMIT 1)
                """,
                {"first": first, "after": after},
            )
            return bool(await cursor.fetchall())

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Connection]:
        """One transaction, in which no other worker does this work; raises _TurnTaken."""
        async with self._database.transaction() as conn:
            cursor = await conn.execute(
                "SELECT FROM pg_try_advisory_xact_lock(%s) AS taken WHERE taken", [RETENTION_LOCK]
            )
            if not await cursor.fetchall():
                raise _TurnTaken
            yield conn


class _TurnTaken(Exception):
    """Another worker does this work now."""
