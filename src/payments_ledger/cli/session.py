"""Who types a command, and the database that it works on."""

import os
import pwd
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from payments_ledger.cli.terminal import run

if TYPE_CHECKING:
    from payments_ledger.commit.audit import Origin
    from payments_ledger.postgres.database import Database
    from payments_ledger.process.settings import Settings

# A person can wait longer for an overview than a client for a payment.
STATEMENT_SECONDS_MAX = 15


def operator() -> "Origin":
    """Whoever runs this program, by the system's name for their user id: the environment is theirs to set."""
    from payments_ledger.commit.audit import Origin
    from payments_ledger.telemetry.tracing import current_trace

    user_id = os.getuid()
    try:
        name = pwd.getpwuid(user_id).pw_name
    except KeyError:
        # A container may run under a number that no user has.
        name = str(user_id)
    return Origin(f"cli:{name}", None, current_trace())


def operate[T](settings: "Settings", work: "Callable[[Database], Awaitable[T]]") -> T:
    """Returns what the work returns; if it raises, ends the command with what is wrong and what to do."""
    return run(settings, on_database(settings, work))


async def on_database[T](settings: "Settings", work: "Callable[[Database], Awaitable[T]]") -> T:
    """Does the work with the database, as the owner of its schema, on one or two connections."""
    from payments_ledger.postgres.database import Database

    database = Database(
        settings.database_url,
        role=None,
        pool_size_max=2,
        server_settings={"statement_timeout": f"{STATEMENT_SECONDS_MAX}s"},
    )
    await database.open()
    try:
        return await work(database)
    finally:
        await database.close()
