"""What all made-up sequences of a model share: one event loop and one migrated database, seen by three roles."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import auditor_role, runtime_role
from payments_ledger.schema.migrate import migrate


@dataclass(frozen=True)
class World:
    """The event loop and the connections that all sequences share."""

    runner: asyncio.Runner
    owner: Database
    runtime: Database
    auditor: Database


@contextmanager
def migrated_world(url: str) -> Iterator[World]:
    """Over the empty database at `url`, which is migrated first."""
    migrate(url)
    repeatable = {"default_transaction_isolation": "repeatable read"}
    with asyncio.Runner() as runner:
        world = World(
            runner,
            Database(url, role=None, pool_size_max=1),
            Database(url, role=runtime_role(url), pool_size_max=4),
            Database(url, role=auditor_role(url), pool_size_max=1, server_settings=repeatable),
        )
        databases = (world.owner, world.runtime, world.auditor)
        for database in databases:
            runner.run(database.open())
        yield world
        for database in databases:
            runner.run(database.close())
