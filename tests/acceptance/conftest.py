"""API and worker as processes of their own, on a real PostgreSQL, Redis and RabbitMQ."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from payments_ledger.cli import app
from payments_ledger.telemetry.logs import configure_logging
from tests.engine_process import PROGRAM as PROGRAM
from tests.engine_process import Process
from tests.services import PostgresServer, RabbitmqServer, RedisServer
from tests.services import free_port as free_port

SECRET = "a secret of more than thirty-two bytes"
# Long, because several test processes may share the machine's cores; what is awaited is there much sooner.
START_SECONDS_MAX = 120.0


def eventually[T](ask: Callable[[], T | None], seconds: float = START_SECONDS_MAX) -> T:
    """What `ask` returns once it returns something; httpx's connection errors count as nothing."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds")
        time.sleep(0.05)


@dataclass
class Engine:
    """The environment of one installation, and its processes."""

    environment: dict[str, str]
    port: int
    # Where the processes' standard output goes, each into a file <command>.log; None leaves it to pytest.
    logs: Path | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['WORKER_PORT']}"

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [PROGRAM, *arguments], env=self.environment, check=True, capture_output=True, text=True, timeout=180
        )
        return done.stdout

    @contextmanager
    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that lives as long as the block and then ends by SIGTERM, cleanly."""
        with ExitStack() as files:
            log = files.enter_context((self.logs / f"{arguments[0]}.log").open("ab")) if self.logs else None
            process = subprocess.Popen([PROGRAM, *arguments], env=self.environment, stdout=log)
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) in (0, -signal.SIGTERM)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextmanager
    def api(self) -> Iterator[None]:
        with self._fork("api", "--port", str(self.port)):
            yield

    @contextmanager
    def worker(self) -> Iterator[None]:
        with self._fork("worker"):
            yield

    @contextmanager
    def _fork(self, *arguments: str) -> Iterator[None]:
        """As `process` does, but of one that has imported everything already."""
        process = Process(arguments, self.environment, self.logs / f"{arguments[0]}.log" if self.logs else None)
        process.start()
        try:
            yield
            if process.is_alive:
                assert process.terminate() in (0, -signal.SIGTERM)
        finally:
            process.kill()

    def install(self) -> None:
        """Makes its database what `migrate` and `seed` make of it."""
        for name in ("migrate", "seed"):
            done = command(self, name)
            assert done.exit_code == 0, done.output

    def wait_until_ready(self) -> None:
        eventually(lambda: httpx.get(f"{self.base_url}/readyz").is_success)


def command(engine: Engine, *arguments: str, typed: str = "", **variables: str) -> Result:
    """What a command prints, and its exit status; in this process, which has imported everything already."""
    try:
        done = CliRunner().invoke(
            app, arguments, prog_name=PROGRAM.name, input=typed, env=engine.environment | variables
        )
    finally:
        logging.disable(logging.NOTSET)
        configure_logging(level="CRITICAL", log_format="json")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


@pytest.fixture(scope="session")
def engine(postgres: PostgresServer, redis_server: RedisServer, rabbitmq_server: RabbitmqServer) -> Engine:
    """Migrated and seeded by the command line; nothing runs yet."""
    environment = os.environ | {
        "DATABASE_URL": postgres.create_database("acceptance"),
        "REDIS_URL": redis_server.url,
        "RABBITMQ_URL": rabbitmq_server.url,
        "JWT_SECRET": SECRET,
        "WORKER_PORT": str(free_port()),
        "RATE_LIMIT_WRITE_PER_MIN": "1000000",
        "RATE_LIMIT_READ_PER_MIN": "1000000",
        "LOGIN_RATE_LIMIT_PER_MIN": "1000000",
        "LOG_LEVEL": "WARNING",
    }
    engine = Engine(environment, free_port())
    engine.install()
    return engine
