"""The database for the length of one command, as the role that the command needs."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import psycopg

from payments_ledger.postgres.database import Connection, Database, driver_url

# A person can wait longer for a look at everything than a client for a payment.
STATEMENT_SECONDS_MAX = 15
SERVER_SETTINGS = {"statement_timeout": f"{STATEMENT_SECONDS_MAX}s"}


@asynccontextmanager
async def opened(database_url: str, *, role: str | None) -> AsyncIterator[Database]:
    """A pool of one or two connections; without a role as the owner of the schema."""
    database = Database(database_url, role=role, pool_size_max=2, server_settings=SERVER_SETTINGS)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def transaction(
    database_url: str, *, role: str | None = None, tenants: Iterable[str] = ()
) -> AsyncIterator[Connection]:
    """One transaction; raises what Database.transaction raises."""
    async with opened(database_url, role=role) as database, database.transaction(tenants) as conn:
        yield conn


async def why_unreachable(database_url: str) -> str | None:
    """What PostgreSQL or the network says to an attempt to connect; None if it succeeds."""
    try:
        connection = await psycopg.AsyncConnection.connect(driver_url(database_url), connect_timeout=3)
    except psycopg.Error as error:
        return " ".join(str(error).split())
    await connection.close()
    return None
