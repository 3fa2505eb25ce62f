"""The servers that tests use: private ones on loopback, started when first needed and ended with the session.

Long because the servers share their ports, folders and ends.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # comes with the embedded PostgreSQL
from psycopg import sql

from payments_ledger.demo.embedded_postgres import EmbeddedPostgres, find_programs

# scripts/test.sh sets it to "docker" when a program is missing, cannot be installed, and Docker answers.
FALLBACK_VARIABLE = "TEST_SERVICES"
# Where packages put programs that are not in everybody's PATH. On Debian the broker's own script comes first: the one
# in PATH changes to the user rabbitmq, who may not enter the folders made here.
PROGRAM_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
# Below the ports that Linux and macOS hand out by themselves. A client that knocks at a stopped server's port could
# otherwise be given that very port as its own, connect to itself, and keep the server from coming back.
PORTS = range(15_000, 32_000)
# pytest-xdist runs the tests in several processes, which share the ports out among them.
PROCESSES_MAX = 16
STOP_SECONDS_MAX = 30
RABBITMQ_SETTINGS = Path(__file__).parents[1] / "deploy" / "rabbitmq" / "ledger.conf"


class ServiceFailed(RuntimeError):
    """A server is missing or does not start."""


class PostgresServer:
    """The embedded PostgreSQL in a folder of its own; `url` names the database `app` as its owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedPostgres(folder)

    @property
    def url(self) -> str:
        return self._server.url()

    def start(self) -> None:
        self._server.start()
        with self._server.connect_as_superuser() as conn:
            # Only a failing machine could tell the difference, a killed server cannot.
            conn.execute("ALTER SYSTEM SET fsync = off")
            conn.execute("ALTER SYSTEM SET full_page_writes = off")
            conn.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        """Ends every process of the server at once, as a crash would."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=STOP_SECONDS_MAX)

    def limit_file_size(self, number_of_bytes: int | None) -> None:
        """No process of the server can make a file longer than this: to it the disk is full. None: as before."""
        limit = "unlimited" if number_of_bytes is None else str(number_of_bytes)
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                # As the server's user: where root lacks CAP_SYS_RESOURCE it may not, but that user may.
                user = process.uids().real if os.geteuid() == 0 else None
                # A process may end at any time, so this may fail.
                subprocess.run(
                    ["prlimit", "--pid", str(process.pid), f"--fsize={limit}:"],
                    check=False,
                    user=user,
                    cwd="/",
                    stderr=subprocess.DEVNULL,
                )

    def terminate_sessions(self) -> int:
        """Ends the sessions of all clients; returns how many there were."""
        with self._server.connect_as_superuser() as conn:
            return conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).rowcount

    def pause(self) -> None:
        """Stops every process of the server where it is: it neither answers nor refuses."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        """None if it has ended, be it by itself: a server that cannot write its log gives up."""
        try:
            with (self._folder / "data" / "postmaster.pid").open() as file:
                postmaster = psutil.Process(int(file.readline()))
            return [postmaster, *postmaster.children(recursive=True)]
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []

    @property
    def socket(self) -> Path:
        """Where it listens."""
        query = parse_qs(urlsplit(self.url).query)
        return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"

    def create_database(self, name: str, *, owner: str = "app") -> str:
        """Makes an empty database and returns its DATABASE_URL; an owner other than `app` is made, without powers."""
        with self._server.connect_as_superuser() as conn:
            if owner != "app":
                conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(owner)))
            conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)))
        return self._server.url(name).replace("app:app@", f"{owner}@" if owner != "app" else "app:app@")

    def create_backup_role(self, name: str) -> None:
        """Makes a user who may read every row and change none (docs/how-to/backup.md)."""
        with self._server.connect_as_superuser() as conn:
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN BYPASSRLS").format(sql.Identifier(name)))
            conn.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(sql.Identifier(name)))

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own programs, of the server's version (pg_dump)."""
        return find_programs() / name


class _Run(Protocol):
    """A server as a process or as a container."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def remove(self) -> None: ...
    def is_alive(self) -> bool: ...
    def output(self) -> str: ...


class _Process:
    """A process in a session of its own: Ctrl-C is for pytest, which then ends the process in good order."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment
        self._log = folder / f"{Path(command[0]).name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.is_alive():
            return
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        self.resume()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        self.kill()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            # To the session that start() made: a shell script may stand between us and the server.
            os.killpg(self._process.pid, number)


class _Container:
    """A Docker container with one port of it on loopback. stop() keeps it, so start() finds its data again."""

    def __init__(self, image: str, *, port: int, inner_port: int) -> None:
        self._image = image
        self._publish = f"127.0.0.1:{port}:{inner_port}"
        self._name = f"payments-ledger-test-{uuid4().hex[:12]}"
        self._exists = False

    def start(self) -> None:
        if not self._exists:
            # RabbitMQ names its data after the host name.
            names = ("--name", self._name, "--hostname", self._name)
            self._docker("create", *names, "--publish", self._publish, self._image)
            self._exists = True
        self._docker("start", self._name)

    def stop(self) -> None:
        self._docker("stop", "-t", str(STOP_SECONDS_MAX), self._name)

    def kill(self) -> None:
        self._docker("kill", self._name)

    def pause(self) -> None:
        self._docker("pause", self._name)

    def resume(self) -> None:
        self._docker("unpause", self._name)

    def remove(self) -> None:
        if self._exists:
            self._docker("rm", "--force", "--volumes", self._name)

    def is_alive(self) -> bool:
        return self._docker("inspect", "--format", "{{.State.Running}}", self._name).strip() == "true"

    def output(self) -> str:
        return self._docker("logs", "--tail", "100", self._name)

    def _docker(self, *arguments: str) -> str:
        result = subprocess.run(
            ["docker", *arguments], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode:
            raise ServiceFailed(f"docker {' '.join(arguments)}: {result.stdout}")
        return result.stdout


class _Server:
    """What the servers behind a port have in common. They come back at the same port after stop() or kill()."""

    start_seconds_max: float

    def __init__(self, run: _Run, port: int) -> None:
        self._run = run
        self.port = port

    def start(self) -> None:
        """Returns when the server answers. Raises ServiceFailed with what it wrote last."""
        self._run.start()
        deadline = time.monotonic() + self.start_seconds_max
        while not self._answers():
            if not self._run.is_alive() or time.monotonic() > deadline:
                output = self._run.output()[-4000:]
                self._run.kill()
                raise ServiceFailed(f"{type(self).__name__} did not start:\n{output}")
            time.sleep(0.02)

    def stop(self) -> None:
        self._run.stop()

    def kill(self) -> None:
        """Ends the server as a crash would."""
        self._run.kill()

    def pause(self) -> None:
        """Makes the server mute: its connections stay open, and nothing answers."""
        self._run.pause()

    def resume(self) -> None:
        self._run.resume()

    def remove(self) -> None:
        self._run.remove()

    def log(self) -> str:
        """What it has written since its last start."""
        return self._run.output()

    def _answers(self) -> bool:
        raise NotImplementedError

    def _answer_to(self, greeting: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(greeting)
                return connection.recv(64)
        except OSError:
            return b""


class RedisServer(_Server):
    """A Redis that keeps nothing on disk: empty after each start."""

    start_seconds_max = 30

    def __init__(self, folder: Path) -> None:
        port = free_port()
        program = _find_program("redis-server")
        if program is None:
            super().__init__(_Container("redis:7", port=port, inner_port=6379), port)
        else:
            settings = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
            command = [program, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]
            super().__init__(_Process(command, folder), port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Empties it."""
        assert self._answer_to(b"FLUSHALL\r\n").startswith(b"+OK")

    def _answers(self) -> bool:
        return self._answer_to(b"PING\r\n").startswith(b"+PONG")


class RabbitmqServer(_Server):
    """A RabbitMQ node with the user guest; what is durable survives stop() and kill()."""

    start_seconds_max = 120

    def __init__(self, folder: Path) -> None:
        self._epmd: _Process | None = None
        self._environment: dict[str, str] | None = None
        port = free_port()
        program = _find_program("rabbitmq-server")
        if program is None:
            super().__init__(_Container("rabbitmq:3-management", port=port, inner_port=5672), port)
        else:
            environment = self._environment = _rabbitmq_environment(Path(program), folder, port)
            # Erlang's port mapper would outlive the broker if the broker started it.
            epmd = _find_program("epmd")
            if epmd is None:
                raise ServiceFailed("epmd is missing, a part of Erlang: apt-get install erlang-base")
            self._epmd = _Process([epmd], folder, environment)
            super().__init__(_Process([program], folder, environment), port)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def control(self, *arguments: str) -> str:
        """Runs rabbitmqctl and returns what it printed."""
        if self._environment is None:
            raise ServiceFailed("rabbitmqctl needs a RabbitMQ outside of Docker.")
        program = _find_program("rabbitmqctl")
        assert program is not None
        done = subprocess.run(
            [program, "--quiet", *arguments], env=self._environment, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise ServiceFailed(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        if self._epmd is not None:
            self._epmd.start()
        super().start()

    def remove(self) -> None:
        super().remove()
        if self._epmd is not None:
            self._epmd.remove()

    def _answers(self) -> bool:
        # AMQP 0-9-1, section 4.2.2: the server answers the protocol header with a method frame, which begins with 1.
        return self._answer_to(b"AMQP\x00\x00\x09\x01").startswith(b"\x01")


class PrometheusServer(_Server):
    """A Prometheus with the configuration of the folder's prometheus.yaml, and its data beside it."""

    start_seconds_max = 60

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        super().__init__(_Process(command, folder), port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        return b" 200 " in self._answer_to(b"GET /-/ready HTTP/1.0\r\n\r\n")


def program(name: str) -> str:
    """The path of a program for which no container stands in."""
    found = _find_program(name)
    if found is None:
        raise ServiceFailed(f"{name} is not installed (apt-get install prometheus, brew install prometheus).")
    return found


def _rabbitmq_environment(program: Path, folder: Path, port: int) -> dict[str, str]:
    """A node that shares nothing with another one on this machine: neither files nor ports nor the Erlang cookie."""
    files = {name: folder / name for name in ("environment", "rabbitmq.conf", "enabled_plugins")}
    files["environment"].touch()
    # As in compose.yaml, but this disk may be fuller than a broker's should be: it would block every publisher.
    files["rabbitmq.conf"].write_text(RABBITMQ_SETTINGS.read_text().replace("= 1GB", "= 1MB"))
    files["enabled_plugins"].write_text("[].\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
    return (
        inherited
        | {
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": "payments-ledger-test@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(files["environment"]),
            "RABBITMQ_CONFIG_FILE": str(files["rabbitmq.conf"]),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(files["enabled_plugins"]),
            # Its script then becomes the broker instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        | _without_plugins(program, folder)
    )


def _without_plugins(program: Path, folder: Path) -> dict[str, str]:
    """Spares the broker the reading of some 70 plugins that nobody enabled: it starts in 7 seconds instead of 18.

    It has to find itself among them, for the schema of its configuration.
    """
    itself = list((program.resolve().parent.parent / "plugins").glob("rabbit-[0-9]*"))
    if len(itself) != 1:
        return {}
    plugins = folder / "plugins"
    plugins.mkdir()
    (plugins / itself[0].name).symlink_to(itself[0])
    return {"RABBITMQ_PLUGINS_DIR": str(plugins)}


def _find_program(name: str) -> str | None:
    """The program's path, or None when a container is to take its place."""
    path = os.pathsep.join((PROGRAM_FOLDERS[0], os.environ.get("PATH", os.defpath), *PROGRAM_FOLDERS[1:]))
    program = shutil.which(name, path=path)
    if program is None and os.environ.get(FALLBACK_VARIABLE) != "docker":
        raise ServiceFailed(
            f"{name} is not installed. scripts/test.sh installs it as root on Debian and Ubuntu, or uses Docker; "
            f"else install it (apt-get install {name}, brew install {name.removesuffix('-server')})."
        )
    return program


def free_port() -> int:
    """A port that nobody listens at, and that no other process of these tests is given."""
    for port in random.sample(PORTS[_place_among_processes() :: PROCESSES_MAX], 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceFailed("No free port on loopback.")


def _place_among_processes() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES_MAX
