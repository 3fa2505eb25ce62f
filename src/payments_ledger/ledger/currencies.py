"""The currencies as the database has them, read into every process that deals with amounts."""

import asyncio
from typing import NoReturn

import psycopg
import structlog

from payments_ledger.errors import Unavailable
from payments_ledger.money import Currency, learn_currencies
from payments_ledger.postgres.database import Connection, Database

log = structlog.get_logger(__name__)

# A migration adds a currency while processes serve, and a process of the next version may use it at once.
REFRESH_SECONDS = 10.0
# Until they are known no amount is understood.
RETRY_SECONDS = 0.25


async def load_currencies(conn: Connection) -> None:
    """Has this process know the currencies of the database, and no others."""
    cursor = await conn.execute("SELECT code, exponent, valid_until FROM currencies")
    learn_currencies([Currency(*row) for row in await cursor.fetchall()])


async def try_to_load(database: Database) -> bool:
    """Loads them in a transaction of its own; False if the database is unavailable, what was known then stays."""
    try:
        async with database.transaction() as conn:
            await load_currencies(conn)
    except (Unavailable, psycopg.Error) as error:
        log.warning("loading currencies waits", reason=f"{type(error).__name__}: {error}")
        return False
    return True


async def wait_for_currencies(database: Database) -> None:
    """Returns once they are loaded."""
    while True:
        if await try_to_load(database):
            return
        await asyncio.sleep(RETRY_SECONDS)


async def keep_currencies(database: Database) -> NoReturn:
    """Loads them again and again, until cancelled."""
    while True:
        await wait_for_currencies(database)
        await asyncio.sleep(REFRESH_SECONDS)
