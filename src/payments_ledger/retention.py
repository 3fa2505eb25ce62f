"""Retention: outbox and audit log are divided by month; months are made ahead, and dropped when they are old."""

import asyncio
from datetime import datetime, timedelta

import psycopg
import structlog
from psycopg import sql

from payments_ledger.errors import Unavailable
from payments_ledger.platform.postgres import Connection, Database, transaction_time

log = structlog.get_logger(__name__)

OUTBOX = "outbox_events"
AUDIT_LOG = "audit_log"

# Each month costs every look for due events some 40 µs. Should no worker run until the next one is over, its rows go to
# the partition for the rest, and move to their month once that is made.
MONTHS_AHEAD = 1
STEP_SECONDS = 3600.0
# After a step that found the tables in use.
RETRY_SECONDS = 60.0

# Any number, as long as nobody else in the database uses it: of several workers one is at it.
RETENTION_LOCK = 7_203_811_408

# To make or drop a partition nobody may be at the table. Whoever comes meanwhile waits behind us, so we wait briefly.
SERVER_SETTINGS = {"lock_timeout": "1s"}


class Retention:
    """Makes and drops the months of both tables, as their owner: the runtime roles can do neither."""

    def __init__(self, database_url: str, *, outbox_days: int, audit_days: int) -> None:
        """Rows are kept for so many days at least, and until their month is over; with 0 for ever."""
        self._database = Database(database_url, role=None, pool_size_max=1, server_settings=SERVER_SETTINGS)
        self._days = {OUTBOX: outbox_days, AUDIT_LOG: audit_days}

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def run(self) -> None:
        """Works until cancelled; waits while the database is away or the tables are in use."""
        await self.open()
        try:
            while True:
                try:
                    await self.step()
                    pause = STEP_SECONDS
                except (Unavailable, psycopg.Error) as error:
                    log.warning("retention waits", reason=f"{type(error).__name__}: {error}")
                    pause = RETRY_SECONDS
                await asyncio.sleep(pause)
        finally:
            await self.close()

    async def step(self) -> None:
        """Each table in a transaction of its own. What another worker is at is left to it."""
        for table, days in self._days.items():
            dropped: list[str] = []
            async with self._database.transaction() as conn:
                if not await _takes_turn(conn):
                    return
                made = await _make_months(conn, table)
                if days:
                    dropped = await _drop_old(conn, table, await transaction_time(conn) - timedelta(days=days))
            if made or dropped:
                log.info("months made and dropped", table=table, made=made, dropped=dropped)


async def _make_months(conn: Connection, table: str) -> int:
    cursor = await conn.execute("SELECT make_months(%s, %s)", [table, MONTHS_AHEAD])
    row = await cursor.fetchone()
    assert row is not None
    made: int = row[0]
    return made


async def _drop_old(conn: Connection, table: str, until: datetime) -> list[str]:
    """Drops the months that ended before, but none with an event that was never published; returns their names."""
    dropped = []
    cursor = await conn.execute("SELECT partition FROM months_of(%s) WHERE ends <= %s ORDER BY ends", [table, until])
    for (month,) in await cursor.fetchall():
        if await _is_needed(conn, table, month):
            log.warning("month is kept: an event in it was never published", table=table, month=month)
            continue
        # The whole table first, as everybody takes its locks. From here on no event of it can be made due again.
        await conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        if not await _is_needed(conn, table, month):
            await conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(month)))
            dropped.append(month)
    if table == OUTBOX:
        # Late events of payments whose month is gone, a refund for one.
        await conn.execute("DELETE FROM outbox_events_rest WHERE created_at < %s AND published_at IS NOT NULL", [until])
    return dropped


async def _is_needed(conn: Connection, table: str, month: str) -> bool:
    if table != OUTBOX:
        return False
    cursor = await conn.execute(
        # Two halves, each with an index of its own.
        sql.SQL(
            """
            (SELECT FROM {month} WHERE published_at IS NULL AND buried_at IS NULL LIMIT 1)
            UNION ALL
            (SELECT FROM {month} WHERE published_at IS NULL AND buried_at IS NOT NULL LIMIT 1)
            """
        ).format(month=sql.Identifier(month))
    )
    return bool(await cursor.fetchall())


async def _takes_turn(conn: Connection) -> bool:
    """False while another worker is at it; the turn ends with the transaction."""
    cursor = await conn.execute("SELECT FROM pg_try_advisory_xact_lock(%s) AS taken WHERE taken", [RETENTION_LOCK])
    return bool(await cursor.fetchall())
