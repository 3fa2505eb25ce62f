"""The currencies as the database has them, read into every process that deals with amounts."""

import asyncio
from functools import partial
from typing import NoReturn

import psycopg
import structlog

from payments_ledger.errors import Unavailable
from payments_ledger.money import Currency, learn_currencies
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.process.periodic import repeat

log = structlog.get_logger(__name__)

# A migration adds a currency while processes serve, and a process of the next version may use it at once.
REFRESH_SECONDS = 10.0
# Until they are known no amount is understood.
RETRY_SECONDS = 0.25


async def load_currencies(conn: Connection) -> None:
    """Has this process know the currencies of the database, and no others."""
    cursor = await conn.execute("SELECT code, exponent, valid_until FROM currencies")
    learn_currencies([Currency(*row) for row in await cursor.fetchall()])


async def refresh_currencies(database: Database) -> None:
    """Loads them in a transaction of its own; what was known stays if that fails."""
    async with database.transaction() as conn:
        await load_currencies(conn)


async def try_to_load(database: Database) -> bool:
    """As refresh_currencies; False while the database is unavailable."""
    try:
        await refresh_currencies(database)
    except (Unavailable, psycopg.Error) as error:
        log.warning("currencies wait", reason=f"{type(error).__name__}: {error}")
        return False
    return True


async def wait_for_currencies(database: Database) -> None:
    """Returns once they are loaded."""
    while not await try_to_load(database):  # noqa: ASYNC110  # nobody could set an event
        await asyncio.sleep(RETRY_SECONDS)


async def keep_currencies(database: Database) -> NoReturn:
    """Loads them again and again, until cancelled."""
    await repeat(
        "currencies", partial(refresh_currencies, database), seconds=REFRESH_SECONDS, retry_seconds=RETRY_SECONDS
    )
