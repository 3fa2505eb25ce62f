"""What a transaction says of itself when its COMMIT, or the reply to it, is lost on the way."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from payments_ledger.errors import DatabaseAway, OutcomeUnknown
from payments_ledger.platform.postgres import Database, driver_url
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
    with pytest.raises(DatabaseAway):
        write_down(background, network, fact, waits=True)
    assert not is_written(url, fact)


def test_a_connection_lost_when_commit_was_sent_along_is_an_unknown_outcome(
    url: str, background: Background, network: Proxy
) -> None:
    network.lose_reply_to(b"INSERT INTO facts")
    with pytest.raises(OutcomeUnknown):
        write_down(background, network, str(uuid4()))
