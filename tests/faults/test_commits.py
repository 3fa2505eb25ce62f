"""What a transaction says of itself when its COMMIT, or the reply to it, is lost on the way."""

import asyncio
import time
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from payments_ledger.errors import DatabaseUnavailable, OutcomeUnknown
from payments_ledger.postgres.database import Database, driver_url
from tests.faults.background import Background
from tests.faults.proxy import Proxy
from tests.services import PostgresServer


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    url = postgres.create_database("commits")
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("CREATE TABLE facts (fact text)")
    return url


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


@pytest.fixture
def network(postgres: PostgresServer, background: Background) -> Iterator[Proxy]:
    proxy = Proxy(background, postgres.socket)
    yield proxy
    proxy.close()


def write_down(background: Background, network: Proxy, fact: str, *, waits: bool = False) -> None:
    """Writes the fact and commits; `waits` for the reply to the first before it sends the second."""

    async def write() -> None:
        database = Database(f"postgresql://app:app@127.0.0.1:{network.port}/commits", role=None, pool_size_max=1)
        await database.open()
        try:
            async with database.transaction() as conn:
                cursor = await conn.execute("INSERT INTO facts VALUES (%s) RETURNING fact", [fact])
                if waits:
                    await cursor.fetchall()
        finally:
            await database.close()

    background.run(write())


def is_written(url: str, fact: str) -> bool:
    with psycopg.connect(driver_url(url)) as conn:
        return conn.execute("SELECT 1 FROM facts WHERE fact = %s", [fact]).fetchone() is not None


def test_a_lost_reply_to_commit_is_an_unknown_outcome_although_all_is_there(
    url: str, background: Background, network: Proxy
) -> None:
    fact = str(uuid4())
    network.lose_reply_to(b"COMMIT")
    with pytest.raises(OutcomeUnknown):
        write_down(background, network, fact)
    assert is_written(url, fact)


def test_a_lost_commit_is_an_unknown_outcome_too_although_nothing_is_there(
    url: str, background: Background, network: Proxy
) -> None:
    fact = str(uuid4())
    network.lose_request(b"COMMIT")
    with pytest.raises(OutcomeUnknown):
        write_down(background, network, fact)
    assert not is_written(url, fact)


def test_a_connection_lost_before_commit_was_sent_is_a_database_that_is_away(
    url: str, background: Background, network: Proxy
) -> None:
    fact = str(uuid4())
    network.lose_reply_to(b"INSERT INTO facts")
    with pytest.raises(DatabaseUnavailable):
        write_down(background, network, fact, waits=True)
    assert not is_written(url, fact)


def test_a_connection_lost_when_commit_was_sent_along_is_an_unknown_outcome(
    url: str, background: Background, network: Proxy
) -> None:
    network.lose_reply_to(b"INSERT INTO facts")
    with pytest.raises(OutcomeUnknown):
        write_down(background, network, str(uuid4()))


def last_words(sqlstate: str) -> bytes:
    """An ErrorResponse as the server sends it when it ends a session (PostgreSQL 16, section 55.7)."""
    fields = b"".join(f"{field}\0".encode() for field in ("SFATAL", "VFATAL", f"C{sqlstate}", "Mno more"))
    return b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0"


# The server has said that it ends the session, and its hanging up has not been noticed yet.
@pytest.mark.parametrize("sqlstate", ["57P01", "57P02", "57P05", "53300", "58030", "08006", "25006", "25P03", "25P04"])
@pytest.mark.parametrize(
    ("said_at", "waits", "refusal"),
    [
        (b"COMMIT", True, OutcomeUnknown),
        (b"COMMIT", False, OutcomeUnknown),
        (b"INSERT INTO facts", True, DatabaseUnavailable),
    ],
)
def test_a_session_that_the_server_ends_is_never_a_fault_of_ours(
    background: Background, network: Proxy, sqlstate: str, said_at: bytes, waits: bool, refusal: type[Exception]
) -> None:
    network.reply_instead(said_at, last_words(sqlstate))
    with pytest.raises(refusal):
        write_down(background, network, str(uuid4()), waits=waits)


@pytest.mark.parametrize(("at_commit", "refusal"), [(True, OutcomeUnknown), (False, DatabaseUnavailable)])
def test_a_pipeline_that_cannot_be_left_is_a_lost_session_although_the_connection_does_not_show_it(
    url: str,
    background: Background,
    network: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    at_commit: bool,
    refusal: type[Exception],
) -> None:
    # What psycopg says when it has read the server's last words, and not yet its end: here without the race.
    leave = psycopg.AsyncPipeline._exit

    def fail(pipeline: psycopg.AsyncPipeline, error: BaseException | None) -> None:
        leave(pipeline, error)
        raise psycopg.OperationalError("cannot exit pipeline mode while busy")

    fact = str(uuid4())

    async def write() -> None:
        database = Database(f"postgresql://app:app@127.0.0.1:{network.port}/commits", role=None, pool_size_max=1)
        await database.open()
        try:
            with monkeypatch.context() as patched:
                async with database.transaction() as conn:
                    await conn.execute("INSERT INTO facts VALUES (%s)", [fact])
                    patched.setattr(psycopg.AsyncPipeline, "_exit", fail)
                    if not at_commit:
                        async with conn.pipeline():
                            pass
        finally:
            await database.close()

    with pytest.raises(refusal):
        background.run(write())
    assert is_written(url, fact) is at_commit


# So many sessions of eight end while facts are written down. One in about 200 has its last words read before its end
# is noticed.
TERMINATIONS = 150


def test_sessions_ended_under_load_leave_no_success_that_is_called_a_failure(
    postgres: PostgresServer, url: str, background: Background
) -> None:
    told: dict[str, type[Exception] | None] = {}
    goes_on = True

    async def write_on_and_on(database: Database) -> None:
        while goes_on:
            fact = str(uuid4())
            told[fact] = None
            try:
                async with database.transaction() as conn:
                    await conn.execute("INSERT INTO facts VALUES (%s)", [fact])
                    await (await conn.execute("SELECT 1")).fetchall()
                    await conn.execute("SELECT 1")
            except Exception as error:
                told[fact] = type(error)
                await asyncio.sleep(0)

    async def write() -> None:
        database = Database(url, role=None, pool_size_max=8)
        await database.open()
        try:
            await asyncio.gather(*(write_on_and_on(database) for _ in range(8)))
        finally:
            await database.close()

    writing = background.start(write())
    ended = 0
    while ended < TERMINATIONS:
        ended += postgres.terminate_sessions()
        time.sleep(0.02)
    goes_on = False
    writing.result(30)
    with psycopg.connect(driver_url(url)) as conn:
        written = {fact for (fact,) in conn.execute("SELECT fact FROM facts")}
    assert set(told.values()) <= {None, OutcomeUnknown, DatabaseUnavailable}
    assert {fact for fact, error in told.items() if error is None} <= written
    assert not {fact for fact, error in told.items() if error is DatabaseUnavailable} & written
