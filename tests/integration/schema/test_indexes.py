"""Large indexes are made while others write; what was interrupted is made anew; two starts take turns."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from payments_ledger.postgres.database import driver_url
from payments_ledger.schema.indexes import INDEX_LOCK, Index, make_indexes, unfinished
from payments_ledger.schema.migrate import migrate, missing_migrations
from tests.services import PostgresServer

BY_NUMBER = Index("things_by_number", "things (number)", "0001")


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """A database with a table of five things, of which two have the same number."""
    url = postgres.create_database(f"indexes_{uuid4().hex}")
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("CREATE TABLE things (number integer)")
        conn.execute("INSERT INTO things VALUES (1), (2), (3), (4), (4)")
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def indexes_of(url: str) -> list[tuple[str, bool]]:
    with psycopg.connect(driver_url(url)) as conn:
        return conn.execute(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'things'::regclass"
        ).fetchall()


def test_an_index_is_made_once(url: str, engine: Engine) -> None:
    assert unfinished(engine, [BY_NUMBER]) == [BY_NUMBER]
    make_indexes(engine, [BY_NUMBER])
    make_indexes(engine, [BY_NUMBER])
    assert unfinished(engine, [BY_NUMBER]) == []
    assert indexes_of(url) == [("things_by_number", True)]


def test_an_index_whose_making_was_interrupted_is_made_anew(url: str, engine: Engine) -> None:
    with psycopg.connect(driver_url(url), autocommit=True) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY things_by_number ON things (number)")
    assert indexes_of(url) == [("things_by_number", False)]
    make_indexes(engine, [BY_NUMBER])
    assert indexes_of(url) == [("things_by_number", True)]


def test_others_write_while_an_index_is_made(url: str, engine: Engine) -> None:
    with psycopg.connect(driver_url(url)) as writer, ThreadPoolExecutor() as pool:
        writer.execute("INSERT INTO things VALUES (6)")
        made = pool.submit(make_indexes, engine, [BY_NUMBER])
        _wait_for(url, "CREATE INDEX CONCURRENTLY%")
        with psycopg.connect(driver_url(url), options="-c lock_timeout=1000") as other:
            other.execute("INSERT INTO things VALUES (7)")
        writer.commit()
        made.result(timeout=30)
    assert indexes_of(url) == [("things_by_number", True)]


def test_two_starts_take_turns(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = threading.Event()
    monkeypatch.setattr("payments_ledger.schema.indexes.time.sleep", lambda _: waited.set())
    with psycopg.connect(driver_url(url)) as first, ThreadPoolExecutor() as pool:
        first.execute(f"SELECT pg_advisory_xact_lock({INDEX_LOCK})")
        made = pool.submit(make_indexes, engine, [BY_NUMBER])
        assert waited.wait(timeout=30)
        assert indexes_of(url) == []
        first.rollback()
        made.result(timeout=30)
    assert indexes_of(url) == [("things_by_number", True)]


def test_migrating_makes_the_indexes_that_migrations_name_and_says_which_are_missing(
    postgres: PostgresServer,
) -> None:
    url = postgres.create_database(f"indexes_{uuid4().hex}")
    migrate(url)
    assert missing_migrations(url) == []
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("DROP INDEX payment_intents_by_time")
    assert [missing.title for missing in missing_migrations(url)] == ["The index payment_intents_by_time"]
    assert migrate(url) == []
    assert missing_migrations(url) == []


def _wait_for(url: str, statement: str) -> None:
    with psycopg.connect(driver_url(url), autocommit=True) as conn:
        for _ in range(1000):
            if conn.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE %s", [statement]).fetchone():
                return
            conn.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(statement)
