"""One installation of its own: two API processes and two workers, and a proxy before each service that they use."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
from psycopg.rows import TupleRow

from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.postgres.database import driver_url
from payments_ledger.verify.audit import audit
from tests.engine_process import Process
from tests.faults.background import Background
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.services import PostgresServer, RabbitmqServer, RedisServer

TENANT = "tenant_demo"
START_SECONDS_MAX = 60.0
UNLIMITED = "1000000"
NEVER_SECONDS = 100_000
API_PORTS = range(32_000, 32_700)


def eventually(
    holds: Callable[[], object], what: str, seconds: float = START_SECONDS_MAX, *, pause: float = 0.05
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)


class System:
    """Everything that can be struck, and how it is healed."""

    def __init__(self, folder: Path, *, seed: int, remind_after_seconds: int) -> None:
        # Of workers that are started by heal().
        self.remind_after_seconds = remind_after_seconds
        for name in ("redis", "rabbitmq"):
            (folder / name).mkdir()
        with ExitStack() as undoing:
            self.background = Background()
            undoing.callback(self.background.close)
            self.postgres = PostgresServer(folder / "postgres")
            undoing.callback(self._stop_postgres)
            self.redis = RedisServer(folder / "redis")
            undoing.callback(self.redis.remove)
            self.rabbitmq = RabbitmqServer(folder / "rabbitmq")
            undoing.callback(self.rabbitmq.remove)
            self._start_servers()
            self._direct_url = self.postgres.create_database("faults")
            self.to_postgres = Proxy(self.background, self.postgres.socket)
            self.to_redis = Proxy(self.background, self.redis.port)
            self.to_rabbitmq = Proxy(self.background, self.rabbitmq.port)
            self.proxies = (self.to_postgres, self.to_redis, self.to_rabbitmq)
            for proxy in self.proxies:
                undoing.callback(proxy.close)
            environment = self.environment = self._environment()
            for command in ("migrate", "seed"):
                process = Process((command,), environment, folder / f"{command}.log")
                process.start()
                assert process.wait() == 0, process.log()
            ports = random.Random(f"{seed} {os.getpid()}").sample(API_PORTS, 2)
            self.base_urls = [f"http://127.0.0.1:{port}" for port in ports]
            self.apis = [
                Process(("api", "--port", str(port)), environment, folder / f"api-{number}.log")
                for number, port in enumerate(ports, 1)
            ]
            self.workers = [Process(("worker",), environment, folder / f"worker-{number}.log") for number in (1, 2)]
            for process in self.processes:
                undoing.callback(process.kill)
            self.heal()
            self.headers = self._log_in()
            self.close = undoing.pop_all().close

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "DATABASE_URL": f"postgresql+psycopg://app:app@127.0.0.1:{self.to_postgres.port}/faults",
            "REDIS_URL": f"redis://127.0.0.1:{self.to_redis.port}/0",
            # A heartbeat each second or two, so that a connection to a mute broker is soon given up.
            "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{self.to_rabbitmq.port}/?heartbeat=3",
            "JWT_SECRET": "a secret of more than thirty-two bytes",
            "RATE_LIMIT_WRITE_PER_MIN": UNLIMITED,
            "RATE_LIMIT_READ_PER_MIN": UNLIMITED,
            "LOGIN_RATE_LIMIT_PER_MIN": UNLIMITED,
            "REMIND_AFTER_SECONDS": str(NEVER_SECONDS),
            # Two workers cannot share one port, and nobody asks for their health.
            "WORKER_PORT": "0",
            "LOG_LEVEL": "WARNING",
        }

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers]

    def load(self, name: str, *, seed: int, clients: int = 6, pause_seconds: float = 0.05) -> Load:
        return Load(
            self.background,
            self.base_urls,
            self.headers,
            name=name,
            seed=seed,
            clients=clients,
            pause_seconds=pause_seconds,
        )

    def heal(self) -> None:
        """Brings everything back that was struck, and returns when both API processes are ready."""
        for proxy in self.proxies:
            proxy.heal()
        self._start_servers()
        for process in self.processes:
            process.resume()
            if not process.is_alive:
                process.start(REMIND_AFTER_SECONDS=str(self.remind_after_seconds))
        for base_url in self.base_urls:
            eventually(lambda base_url=base_url: self._is_ready(base_url), f"{base_url} is ready", pause=0.2)  # type: ignore[misc]

    def restart_workers(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.heal()

    def owner(self) -> psycopg.Connection[TupleRow]:
        """A connection past every proxy that sees all tenants' rows."""
        return psycopg.connect(driver_url(self._direct_url).replace("app:app@", "postgres@"), autocommit=True)

    def count_in_transaction(self) -> int:
        """How many sessions of clients are in a transaction and wait for their client.

        Within a pipeline PostgreSQL calls such a session active: it is idle only after a Sync.
        """
        with self.owner() as conn:
            row = conn.execute(
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND wait_event = 'ClientRead'
                """
            ).fetchone()
        return row[0] if row else 0

    def verify(self) -> list[str]:
        """What the audit of `payments-ledger verify` finds broken."""

        async def collect() -> list[str]:
            found = audit(self._direct_url, INVARIANTS, bounds=BOUNDS)
            return [f"{result.invariant.name}: {result.failures}" async for result in found if not result.ok]

        return self.background.run(collect())

    def logs(self) -> str:
        return "\n".join(f"--- {process}\n{process.log()[-6000:]}" for process in self.processes)

    def _stop_postgres(self) -> None:
        self.postgres.kill()
        self.postgres.stop()

    def _start_servers(self) -> None:
        self.postgres.start()
        self.redis.start()
        self.rabbitmq.start()

    def _log_in(self) -> dict[str, str]:
        # One who may refund, too.
        credentials = {"email": "admin@local", "password": "admin123"}
        answer = httpx.post(f"{self.base_urls[0]}/v1/auth/token", json=credentials, timeout=10).raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access_token']}", "X-Tenant-Id": TENANT}

    def _is_ready(self, base_url: str) -> bool:
        try:
            answer = httpx.get(f"{base_url}/readyz", timeout=6)
        except httpx.TransportError:
            return False
        return answer.is_success and answer.json()["status"] == "ok"


@contextmanager
def running_system(seed: int, *, remind_after_seconds: int = NEVER_SECONDS) -> Iterator[System]:
    """Without the reminder, unless it is asked for: it would mend what must not break in the first place."""
    with tempfile.TemporaryDirectory(prefix="ledger-faults-") as folder:
        system = System(Path(folder), seed=seed, remind_after_seconds=remind_after_seconds)
        try:
            yield system
        finally:
            system.close()
