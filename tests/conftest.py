"""The servers as fixtures: one of each for the whole session, and none for a session that asks for none."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from payments_ledger.platform.logging import configure_logging
from tests.profiles import register_profiles
from tests.services import PostgresServer, RabbitmqServer, RedisServer

register_profiles()


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    configure_logging(level="CRITICAL", log_format="json")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="ledger-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="ledger-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitmqServer]:
    with tempfile.TemporaryDirectory(prefix="ledger-rabbitmq-") as folder:
        server = RabbitmqServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.remove()
