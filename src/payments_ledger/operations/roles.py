"""One pool for all that an operator does: the schema's owner, who takes the role of the relay or of the auditor."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote

from payments_ledger.postgres.database import Connection, Database, acting_as
from payments_ledger.postgres.roles import auditor_role, relay_role


@asynccontextmanager
async def relaying(owner: Database) -> AsyncIterator[Connection]:
    """A transaction that sees every tenant's events and counts of payments."""
    async with owner.transaction() as conn, as_relay(conn):
        yield conn


@asynccontextmanager
async def auditing(owner: Database) -> AsyncIterator[Connection]:
    """A transaction that reads the books of every tenant; raises what Database.transaction raises."""
    async with owner.transaction() as conn, acting_as(conn, auditor_role(_url_of(conn))):
        yield conn


def as_relay(conn: Connection) -> AbstractAsyncContextManager[None]:
    """A part of an owner's transaction that sees and changes what becomes of every tenant's events."""
    return acting_as(conn, relay_role(_url_of(conn)))


def _url_of(conn: Connection) -> str:
    """As much of the database's URL as the names of its roles are made of."""
    return f"/{quote(conn.info.dbname)}"
