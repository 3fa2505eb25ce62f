"""The servers as fixtures: one of each for the whole session, and none for a session that asks for none."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from payments_ledger.money import learn_currencies
from payments_ledger.telemetry.logs import configure_logging
from tests.iso_4217 import CURRENCIES
from tests.profiles import register_profiles
from tests.services import PostgresServer, RabbitmqServer, RedisServer

register_profiles()
# Tests' modules name amounts as soon as they are imported.
learn_currencies(CURRENCIES)

# Every random choice of the fault tests begins with it, in each process of a run.
os.environ.setdefault("FAULTS_SEED", str(random.randrange(2**32)))


def pytest_report_header() -> str:
    return f"FAULTS_SEED={os.environ['FAULTS_SEED']}"


# Whole files go to the next free process (scripts/test.sh), so those that take longest begin first (--durations=40).
# What runs beside them matters, too: files that mostly wait for something that is away stand beside those that work.
LONGEST_FIRST = (
    "faults/test_services.py",
    "faults/test_processes_and_clients.py",
    "acceptance/demo/test_dev.py",
    "acceptance/orders/test_consumer.py",
    "acceptance/test_engine.py",
    "acceptance/test_smoke.py",
    "acceptance/test_monitoring.py",
    "acceptance/process/test_draining.py",
    "acceptance/test_limits.py",
    "faults/test_rogue_administrators.py",
    "acceptance/test_compose.py",
    "acceptance/test_contract.py",
    "models/test_ledger_model.py",
    "models/test_transactions_model.py",
    "acceptance/test_backup.py",
    "acceptance/test_operator.py",
    "integration/rabbitmq/test_lenient_decoding.py",
    "integration/rabbitmq/test_consumer.py",
    "integration/tenants/test_routes.py",
    "integration/access/test_routes.py",
    "integration/web/test_event_loop.py",
    "integration/payments/test_gauges.py",
    "unit/web/test_http_edge_generated.py",
    "faults/test_commits.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured on their way, whichever process ran them."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"{value} ({report.nodeid.rpartition('::')[2]})")


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
