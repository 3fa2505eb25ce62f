"""PostgreSQL: the pool, and the one way to open a transaction, confined to a role and to the tenants it names."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from select import POLLIN, poll
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from payments_ledger.errors import DatabaseUnavailable, OutcomeUnknown, SchemaMissing, TooBusy, Unavailable
from payments_ledger.postgres.array_literals import write_arrays_quickly

type Write[Row] = Callable[[Connection, Sequence[Row]], Awaitable[None]]
"""Writes rows in one statement."""


class Connection(AsyncConnection[TupleRow]):
    """A connection on which `Database.transaction` has begun a transaction, in pipeline mode.

    A statement is sent and not waited for: what it raises is raised when rows are fetched, by it or by a later one, or
    when the transaction ends. So all that only writes waits once, for the COMMIT. A cursor has no `rowcount` before
    something was fetched.

    Hand-optimised (ADR 34): a batch waited about ten times for PostgreSQL, a create now waits twice and a confirm three
    times; 500 to 610 requests/s became 1,290 to 1,360. It stays as long as a batch has more than one statement.
    """

    opening: AsyncCursor[TupleRow]
    began_at: datetime | None
    deferred: dict[Write[Any], list[Any]]

    def defer[Row](self, write: Write[Row], rows: Iterable[Row]) -> None:
        """Has `write` write the rows just before the COMMIT, together with all others of this transaction.

        For what nothing in the transaction reads: its use cases then share one statement.

        Hand-optimised (ADR 37): a batch of creates and confirms takes ten statements where it took fourteen; the median
        of a create at 300 payments/s went from 7.9 ms to 6.0. It may be deleted where a batch has one use case only.
        """
        self.deferred.setdefault(write, []).extend(rows)

    async def write_deferred(self) -> None:
        """Writes what `defer` was given, if anything."""
        waiting, self.deferred = self.deferred, {}
        for write, rows in waiting.items():
            if rows:
                await write(self, rows)

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """A part of the transaction that may fail by itself, and then writes nothing."""
        await self.write_deferred()
        async with self.pipeline() as pipeline:
            # Until then psycopg does not know of the BEGIN, and would take this part for the whole.
            await pipeline.sync()
            async with super().transaction(savepoint_name, force_rollback) as part:
                try:
                    yield part
                except BaseException:
                    self.deferred.clear()
                    raise
                await self.write_deferred()


# The bounds below keep a request that meets a dead or overloaded database under the five seconds that section 5 of the
# design promises: waiting for a connection, then for one statement.
CONNECTION_WAIT_SECONDS_MAX = 2.0
STATEMENT_SECONDS_MAX = 4
LOCK_WAIT_SECONDS_MAX = 3
# A process that was stopped in the middle of a transaction must not hold its locks for long. PostgreSQL counts from a
# Sync on, and a pipeline sends none before its end: this ends sessions that wait between pipelines, not within one.
IDLE_IN_TRANSACTION_SECONDS_MAX = 30

SERVER_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": f"{STATEMENT_SECONDS_MAX}s",
    "lock_timeout": f"{LOCK_WAIT_SECONDS_MAX}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS_MAX}s",
}

# For connections whose statements look up a few rows by their keys. A prepared statement keeps its plan; one that was
# made while a table was nearly empty would read the whole table at each execution, until the next ANALYZE. These prices
# for a row that is looked at make it use the index from the beginning. Hand-optimised (ADR 34): with the policies of
# migration 0010, PostgreSQL's time for a request went from 866 to 1,161 µs to 439 to 493 in a new database. They may be
# deleted once prepared statements are planned anew when a table grows.
LOOKUP_SETTINGS = {
    "cpu_tuple_cost": "0.5",
    "cpu_index_tuple_cost": "0.25",
    # Neither is worth its start for what these connections do, but would look so at these prices.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}

# How libpq's `options` write a blank within a value.
BLANK = r"\ "

# Seconds between attempts to reach a database that is unavailable; the pool doubles them up to its own bound.
RECONNECT_SECONDS_MAX = 5.0


# At the end of DATABASE_URL: a pooler in transaction mode stands before the server. It hands each transaction to any of
# its own connections, so nothing may rest on a session: no settings at its start, no prepared statements.
POOLER_MARK = re.compile(r"[?&]pgbouncer=true$")


def driver_url(url: str) -> str:
    """The URL as libpq reads it: DATABASE_URL without SQLAlchemy's driver name and without our mark."""
    return POOLER_MARK.sub("", url).replace("postgresql+psycopg://", "postgresql://", 1)


class RolledBack(Exception):
    """The transaction was rolled back at its COMMIT, because an error of the database in it was suppressed."""


class Database:
    """A pool of connections whose transactions run under `role`; without a role as the owner (migrate and seed)."""

    def __init__(
        self, url: str, *, role: str | None, pool_size_max: int, server_settings: Mapping[str, str] | None = None
    ) -> None:
        """`server_settings` are PostgreSQL's, on top of SERVER_SETTINGS."""
        self._role = role
        configured = SERVER_SETTINGS | dict(server_settings or {})
        is_read_only = configured.get("default_transaction_read_only") == "on"
        # Where we forbid writes ourselves, a refused one says nothing of the server.
        self._losses = tuple(state for state in _LOSSES if not (is_read_only and state == _READ_ONLY))
        self._opening = _set_locally("role", "payments_ledger.tenant_ids")
        self._opening_values: list[str] = []
        session: dict[str, Any] = {
            "options": " ".join(f"-c {name}={value.replace(' ', BLANK)}" for name, value in configured.items())
        }
        self._begin = b"BEGIN"
        if POOLER_MARK.search(url):
            # These two are said with BEGIN; afterwards it would be too late.
            if isolation := configured.pop("default_transaction_isolation", None):
                self._begin += f" ISOLATION LEVEL {isolation}".encode()
            configured.pop("default_transaction_read_only", None)
            if is_read_only:
                self._begin += b" READ ONLY"
            self._opening = _set_locally("role", "payments_ledger.tenant_ids", *configured)
            self._opening_values = list(configured.values())
            session = {"prepare_threshold": None}
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            driver_url(url),
            connection_class=Connection,
            kwargs={
                "autocommit": True,
                "connect_timeout": 3,
                "application_name": "payments-ledger",
                "tcp_user_timeout": 5000,
                **session,
            },
            min_size=1,
            max_size=pool_size_max,
            timeout=CONNECTION_WAIT_SECONDS_MAX,
            reconnect_timeout=RECONNECT_SECONDS_MAX,
            configure=write_arrays_quickly,
            check=_raise_if_ended,
            open=False,
        )

    async def open(self) -> None:
        """Starts connecting in the background: the database may still be unavailable."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=5)

    @asynccontextmanager
    async def transaction(
        self, tenants: Iterable[str] = (), *, snapshot: str | None = None
    ) -> AsyncIterator[Connection]:
        """One READ COMMITTED transaction that sees the rows of `tenants` only.

        `snapshot` is the moment that a REPEATABLE READ transaction has exported, to see what that one sees.

        Raises OutcomeUnknown when the connection was lost after COMMIT was sent, together with all statements that had
        not been waited for; DatabaseUnavailable, SchemaMissing, TooBusy or RolledBack when nothing can have been
        committed.
        Role and tenants are local to the transaction, so that a connection pool in between cannot mix them up.
        """
        try:
            connection = await self._pool.getconn()
        except (PoolTimeout, TooManyRequests, psycopg.OperationalError) as error:
            raise DatabaseUnavailable from error
        commits = False
        try:
            async with connection.pipeline():
                await self._open_transaction(connection, tenants, snapshot)
                yield connection
                await connection.write_deferred()
                commits = True
                commit = await connection.execute("COMMIT")
            if commit.statusmessage is None:
                # Nothing was raised, and yet there is no response to the COMMIT.
                raise OutcomeUnknown
            if commit.statusmessage != "COMMIT":
                raise RolledBack
        except _LACKING as error:
            raise SchemaMissing from error
        except _GAVE_UP_WAITING as error:
            raise TooBusy from error
        except psycopg.Error as error:
            if not connection.broken and not _is_loss(error, self._losses):
                raise
            # It may be in a state that psycopg cannot bring in order again. The pool replaces it.
            await connection.close()
            raise (OutcomeUnknown if commits else DatabaseUnavailable) from error
        finally:
            try:
                if connection.pgconn.transaction_status is not TransactionStatus.IDLE:
                    # If that fails, the pool closes the connection.
                    with suppress(psycopg.Error):
                        await connection.rollback()
            finally:
                await self._pool.putconn(connection)

    async def _open_transaction(self, connection: Connection, tenants: Iterable[str], snapshot: str | None) -> None:
        """Begins a transaction; nothing of it is waited for here."""
        await connection.execute(self._begin)
        if snapshot is not None:
            await connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        connection.began_at = None
        connection.deferred = {}
        connection.opening = await connection.cursor(binary=True).execute(
            self._opening,
            [self._role or "none", ",".join(sorted(set(tenants))), *self._opening_values],
        )

    async def is_up(self) -> bool:
        """Whether a statement can be executed now."""
        try:
            async with self.transaction() as conn:
                await conn.execute("SELECT 1")
        except (Unavailable, psycopg.Error):
            return False
        return True

    def statistics(self) -> dict[str, Any]:
        """The pool's counters as psycopg_pool names them (pool_size, pool_available, requests_waiting …)."""
        return dict(self._pool.get_stats())


def _set_locally(*names: str) -> bytes:
    """The statement that gives settings their values until the transaction ends, and returns when that began."""
    return f"SELECT now(), {', '.join(f"set_config('{name}', %s, true)" for name in names)}".encode()


@asynccontextmanager
async def acting_as(conn: Connection, role: str) -> AsyncIterator[None]:
    """A part of an owner's transaction that runs under the role; if it fails, so does the transaction."""
    await conn.execute("SELECT set_config('role', %s, true)", [role])
    yield
    await conn.execute("SELECT set_config('role', 'none', true)")


async def transaction_time(conn: Connection) -> datetime:
    """When the transaction began, by the database's clock: the only one that dates payments and entries."""
    if conn.began_at is None:
        row = await conn.opening.fetchone()
        assert row is not None
        conn.began_at = row[0]
    return conn.began_at


async def _raise_if_ended(connection: Connection) -> None:
    """Raises if the server has ended the session, of which it has sent word at once: no round trip is needed.

    Hand-optimised with the pipeline mode (ADR 34). May be deleted once psycopg_pool's own check needs no round trip.

    A server that fell silent is noticed by the statement that follows, as it would be by a round trip.
    """
    events = poll()
    events.register(connection.fileno(), POLLIN)
    if events.poll(0):
        await AsyncConnectionPool.check_connection(connection)


# The role, a table or a function is missing: the migrations have not been run.
_LACKING = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
)

# A statement waited too long for a lock, or took too long.
_GAVE_UP_WAITING = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)

_READ_ONLY = "25006"

# The server ends the session, has no room, or may not write, rather than finding fault with a row: whole classes of
# SQLSTATE, then single ones (PostgreSQL 16, appendix A). They are enough by themselves: the server
# has not always closed the connection by the time that its last message is read.
_LOSSES = (
    "08",  # connection exception
    "53",  # insufficient resources: disk, memory, connections
    "57P",  # operator intervention: shut down, crashed, starting up, session idle for too long
    "58",  # system error, outside of PostgreSQL
    _READ_ONLY,  # a standby that was the primary until now
    "25P03",  # idle in transaction for too long: we stood still
    "25P04",  # transaction took too long
)


def _is_loss(error: psycopg.Error, losses: tuple[str, ...]) -> bool:
    """Whether the session was lost, and not a statement refused, whether or not the connection shows it yet."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith(losses)
    if isinstance(error, psycopg.errors.PipelineAborted):
        # What was sent after the statement that failed. Unless that was suppressed, it is what this one hides.
        return isinstance(error.__context__, psycopg.Error) and _is_loss(error.__context__, losses)
    # Messages of psycopg or libpq, not of the server: "the connection is lost", "cannot exit pipeline mode while busy".
    return isinstance(error, psycopg.OperationalError)
