"""The machine that the figures are of: its parts, the versions on it, and what each process used of it."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # comes with the embedded PostgreSQL

from bench.servers import Installation, Process

PACKAGES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "psycopg",
    "aio-pika",
    "redis",
    "pyjwt",
)
MEGABYTE = 1_000_000


def describe(installation: Installation) -> dict[str, str]:
    """Machine, versions and commit, for a reader who wants to compare."""
    with installation.postgres.connect_as_superuser() as conn:
        [postgres] = conn.execute("SHOW server_version").fetchone() or ["?"]
    disk = next(
        (
            part.fstype
            for part in sorted(psutil.disk_partitions(all=True), key=lambda part: -len(part.mountpoint))
            if installation.folder.is_relative_to(part.mountpoint)
        ),
        "?",
    )
    return {
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "disk": f"{disk}; one fsync takes {_fsync_ms(installation.folder):.2f} ms",
        "system": f"{platform.system()} {platform.release()}",
        "PostgreSQL": str(postgres),
        "Redis": _first_number("redis-server", "--version"),
        "RabbitMQ": _rabbitmq_version(),
        "wrk": _first_number("wrk", "-v"),
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def resident_megabytes(process: Process) -> float:
    """What the process and its children hold in memory (RSS)."""
    return float(sum(member.memory_info().rss for member in _family(process.pid))) / MEGABYTE


class Meter:
    """The processor time that each part of the system has used so far."""

    def __init__(self, installation: Installation, processes: Mapping[str, Process]) -> None:
        self._pids = {name: process.pid for name, process in processes.items()}
        self._pids["postgres"] = installation.postgres_pid()
        servers = {"redis-server": "redis", "beam.smp": "rabbitmq"}
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if (name := child.name()) in servers:
                    self._pids[servers[name]] = child.pid

    def seconds(self) -> dict[str, float]:
        used = {name: sum(_cpu_seconds(member) for member in _family(pid)) for name, pid in self._pids.items()}
        own = os.times()
        return used | {"load generator": own.user + own.system + own.children_user + own.children_system}

    @contextmanager
    def measure(self, used: dict[str, float]) -> Iterator[None]:
        """Fills `used` with the seconds of each part during the block."""
        before = self.seconds()
        yield
        used.update({name: after - before[name] for name, after in self.seconds().items()})


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    # Those who ended meanwhile are counted by their parent.
    return float(times.user + times.system + times.children_user + times.children_system)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "migrations", "bench/*.py")
    return f"{git('rev-parse', '--short', 'HEAD') or '?'}{' with changes' if changed else ''}"


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()


def _fsync_ms(folder: Path) -> float:
    """The median of 50: what every commit waits for at least."""
    taken = []
    file = folder / "fsync"
    with file.open("wb", buffering=0) as output:
        for _ in range(50):
            output.write(b"x" * 8192)
            begin = time.perf_counter()
            os.fsync(output.fileno())
            taken.append(time.perf_counter() - begin)
    file.unlink()
    return sorted(taken)[len(taken) // 2] * 1e3


def _first_number(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "?"


def _rabbitmq_version() -> str:
    folders = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    return next((folder.name.rpartition("-")[2] for folder in folders), "?")
