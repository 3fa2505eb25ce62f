"""What is measured and what it needs: PostgreSQL, Redis and RabbitMQ as in production, and the engine's processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import psutil  # type: ignore[import-untyped]  # comes with the embedded PostgreSQL
from psycopg import Connection, connect, sql
from psycopg.rows import TupleRow
from uuid_utils.compat import uuid7

from payments_ledger.access.policy import ROLE_PERMISSIONS
from payments_ledger.access.tokens import Identity, Tokens
from payments_ledger.demo.embedded_postgres import EmbeddedPostgres
from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.schema.migrate import migrate
from payments_ledger.tenants.queries import insert_user
from tests.services import RabbitmqServer, RedisServer

SECRET = "a secret of the benchmark, longer than 32 bytes"
ISSUER = "local-auth"
HOST = "127.0.0.1"
PROGRAM = Path(sys.executable).with_name("payments-ledger")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
COMMAND_SECONDS_MAX = 600.0
TENANTS = 20
# Every request is counted in Redis, and none is refused.
UNLIMITED = "1000000000"

# As one would set up a small server of its own; everything that makes a commit durable is on.
POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "wal_buffers": "16MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "max_connections": "200",
    "autovacuum": "on",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A user who may pay for a tenant, with a token."""

    tenant_id: str
    user_id: UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "X-Tenant-Id": self.tenant_id}


class Books:
    """One migrated database of the server, with tenants, and a user of the role ops in each of them."""

    def __init__(self, server: EmbeddedPostgres, name: str, tenants: int = TENANTS) -> None:
        self.name = name
        self._server = server
        with server.connect_as_superuser() as conn:
            conn.execute(sql.SQL("CREATE DATABASE {} OWNER app").format(sql.Identifier(name)))
        self.url = server.url(name)
        migrate(self.url)
        self.callers = asyncio.run(self._add_tenants(tenants))

    @property
    def superuser_url(self) -> str:
        """For what must see all tenants, and for the measurement without row-level security."""
        return self.url.replace("app:app@", "postgres@", 1)

    @contextmanager
    def superuser(self) -> Iterator[Connection[TupleRow]]:
        with connect(driver_url(self.superuser_url), autocommit=True) as conn:
            yield conn

    def settle_down(self) -> None:
        """Ends what a load leaves behind, so that the next one does not pay for it."""
        with self.superuser() as conn:
            conn.execute("VACUUM ANALYZE")
            conn.execute("CHECKPOINT")

    async def _add_tenants(self, number: int) -> list[Caller]:
        ids = [f"tenant-{position:02d}" for position in range(1, number + 1)]
        tokens = Tokens(secret=SECRET, issuer=ISSUER, lifetime_seconds=86_400)
        database = Database(self.url, role=None, pool_size_max=2)
        await database.open()
        callers = []
        try:
            async with database.transaction(ids) as conn:
                for tenant_id in ids:
                    user_id = uuid7()
                    await add_tenant(conn, tenant_id, "A tenant of the benchmark")
                    await insert_accounts(conn, tenant_id, DEFAULT_ACCOUNTS)
                    await insert_user(
                        conn,
                        tenant_id=tenant_id,
                        user_id=user_id,
                        email="ops@bench",
                        password_hash="none",
                        roles=["ops", "finance"],
                    )
                    identity = Identity(
                        str(user_id),
                        tenant_id,
                        ("finance", "ops"),
                        ROLE_PERMISSIONS["ops"] | ROLE_PERMISSIONS["finance"],
                        "pro",
                        "region-a",
                    )
                    callers.append(Caller(tenant_id, user_id, tokens.issue(identity)))
        finally:
            await database.close()
        return callers


@dataclass
class Process:
    """A process of the engine, or of the reference application."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    base_url: str = ""

    @property
    def pid(self) -> int:
        return self.popen.pid

    def fail_if_ended(self) -> None:
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended ({self.popen.returncode}):\n{self.log.read_text()[-4000:]}")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        path = "/readyz" if self.name == "api" else "/openapi.json"
        while True:
            self.fail_if_ended()
            try:
                if httpx.get(self.base_url + path, timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """In good order if it goes within the time, and with all its children."""
        if self.popen.poll() is not None:
            return
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            for member in family:
                if member.is_running():
                    member.kill()
            self.popen.wait()


class Installation:
    """The servers, and the engine's processes on them. Everything ends with the `with` block, whatever ends it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: list[Process] = []

    def __enter__(self) -> "Installation":
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ledger-bench-")))
            self.postgres = EmbeddedPostgres(self.folder / "postgres")
            # Before it starts: a start that is interrupted has to be undone as well.
            self._stack.callback(self.postgres.stop)
            self.postgres.start()
            self._configure_postgres()
            self.redis = RedisServer(self._make_folder("redis"))
            self._stack.callback(self.redis.remove)
            self.redis.start()
            self.rabbitmq = RabbitmqServer(self._make_folder("rabbitmq"))
            self._stack.callback(self.rabbitmq.remove)
            self.rabbitmq.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.stop()
        self._stack.close()

    def _make_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _configure_postgres(self) -> None:
        with self.postgres.connect_as_superuser() as conn:
            for name, value in POSTGRES_SETTINGS.items():
                conn.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self.postgres.stop()
        self.postgres.start()

    def postgres_socket(self) -> str:
        """The folder of the socket, as libpq's `host`."""
        with self.postgres.connect_as_superuser() as conn:
            return conn.info.host

    def postgres_pid(self) -> int:
        with (self.folder / "postgres" / "data" / "postmaster.pid").open() as file:
            return int(file.readline())

    def environment(self, books: Books, **settings: str) -> dict[str, str]:
        """As in production, but for the limits, which count and do not refuse, and for APP_ENV itself.

        That only decides what is refused at the start, and these services have the passwords that everybody knows.
        """
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if name in os.environ}
        return (
            kept
            | {
                "DATABASE_URL": books.url,
                "REDIS_URL": self.redis.url,
                "RABBITMQ_URL": self.rabbitmq.url,
                "JWT_SECRET": SECRET,
                "JWT_ISSUER": ISSUER,
                # The worker's health is not asked for, and its port may be another's.
                "WORKER_PORT": "0",
                "RATE_LIMIT_WRITE_PER_MIN": UNLIMITED,
                "RATE_LIMIT_READ_PER_MIN": UNLIMITED,
            }
            | settings
        )

    def run_command(self, name: str, books: Books) -> subprocess.CompletedProcess[str]:
        """Runs a command of the engine to its end."""
        return subprocess.run(
            [PROGRAM, name],
            env=self.environment(books),
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
        )

    @contextmanager
    def api(self, books: Books, *, workers: int = 1) -> Iterator[Process]:
        port = _free_port()
        command = [str(PROGRAM), "api", "--host", HOST, "--port", str(port), "--workers", str(workers)]
        with self._process("api", command, self.environment(books), port) as process:
            process.wait_until_ready()
            yield process

    @contextmanager
    def worker(self, books: Books, **settings: str) -> Iterator[Process]:
        with self._process("worker", [str(PROGRAM), "worker"], self.environment(books, **settings)) as process:
            yield process

    @contextmanager
    def reference(self) -> Iterator[Process]:
        """Limit (a)'s application, served as the engine is: one process of uvicorn with uvloop and httptools."""
        port = _free_port()
        command = [
            *(sys.executable, "-m", "uvicorn", "bench.reference:app", "--host", HOST, "--port", str(port)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ]
        environment = {"PATH": os.environ.get("PATH", ""), "JWT_SECRET": SECRET, "JWT_ISSUER": ISSUER}
        with self._process("reference", command, environment, port) as process:
            process.wait_until_ready()
            yield process

    @contextmanager
    def _process(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], port: int = 0
    ) -> Iterator[Process]:
        log = self.folder / f"{name}-{len(self._processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for the benchmark, which then ends its processes in good order.
                start_new_session=True,
            )
        process = Process(name, popen, log, f"http://{HOST}:{port}")
        self._processes.append(process)
        try:
            yield process
        finally:
            process.stop()
            self._processes.remove(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
