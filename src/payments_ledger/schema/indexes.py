"""Indexes on tables that are large by now: made after the migration that names them, CONCURRENTLY, which blocks nobody.

CREATE INDEX keeps writers waiting for as long as it takes, and CONCURRENTLY is not possible in a transaction. What was
interrupted leaves an invalid index behind, which the next start replaces.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Engine, text

# Any number that nothing else on the server uses: concurrent starts take turns by it.
INDEX_LOCK = 7203811407
TURN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Index:
    """`definition` is what stands after ON: the table, and its columns in parentheses."""

    name: str
    definition: str
    version: str


def unfinished(engine: Engine, indexes: Collection[Index]) -> list[Index]:
    """Those of the indexes that are missing or invalid, in their order."""
    with engine.connect() as connection:
        valid = connection.execute(
            text("SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid AND indexrelid = ANY (ARRAY("
                 "SELECT to_regclass(name) FROM unnest(cast(:names AS text[])) AS name))"),
            {"names": [index.name for index in indexes]},
        ).scalars()  # fmt: skip
        found = set(valid)
    return [index for index in indexes if index.name not in found]


def make_indexes(engine: Engine, indexes: Collection[Index]) -> None:
    """Makes those that are unfinished; waits for transactions that run, and for another start that makes them."""
    if not unfinished(engine, indexes):
        return
    with engine.connect() as turn, engine.connect() as connection:
        # Tried, not waited for: CONCURRENTLY would wait for the transaction that waits. By a transaction and not by a
        # session, which a pooler could give to somebody else. And without parameters: what was sent with some keeps its
        # view of the database until the next statement, and CONCURRENTLY waits for all who have an older one.
        while not turn.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({INDEX_LOCK})").scalar():
            turn.rollback()
            time.sleep(TURN_SECONDS)
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for index in unfinished(engine, indexes):
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
            connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY {index.name} ON {index.definition}")
