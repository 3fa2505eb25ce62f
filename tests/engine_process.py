"""A process of the engine as a child of a server that has imported everything already: it starts at once."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from payments_ledger.cli import app

PROGRAM = Path(sys.executable).with_name("payments-ledger")
# On a machine that does other work as well; most take less than one.
END_SECONDS_MAX = 60.0

_forks = multiprocessing.get_context("forkserver")
# What the commands import when they are called, too: a second of processor time for each process.
_forks.set_forkserver_preload(
    [__name__, "uvicorn", "payments_ledger.api", "payments_ledger.worker", "payments_ledger.schema.migrate"]
)


class Process:
    """`payments-ledger` with these arguments, started and struck as often as one likes.

    Without `log` it writes where the tests do. Not for `api --workers`: it cannot have processes of its own.
    """

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path | None = None) -> None:
        self._arguments = arguments
        self._environment = environment
        self._log = log
        if log:
            log.touch()
        self._run: _Fork | _FakedClock | None = None

    def start(self, *, failpoints: str = "", minutes_off: int = 0, **environment: str) -> None:
        """`minutes_off` is how far its clock is ahead of all others."""
        complete = self._environment | {"FAILPOINTS": failpoints} | environment
        if minutes_off:
            self._run = _FakedClock(minutes_off, self._arguments, complete, self._log)
        else:
            self._run = _Fork(self._arguments, complete, self._log)

    def restart(self, *, failpoints: str = "", minutes_off: int = 0, **environment: str) -> None:
        self.kill()
        self.start(failpoints=failpoints, minutes_off=minutes_off, **environment)

    @property
    def is_alive(self) -> bool:
        return self._run is not None and self._run.exit_status() is None

    @property
    def pid(self) -> int:
        """Of its present run."""
        assert self._run is not None
        return self._run.pid

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """Asks it to finish, and returns its exit status when it has."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wait(self) -> int:
        """Its exit status, negative if a signal ended it."""
        return self._run.wait() if self._run else 0

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._run is not None and self._run.exit_status() is None:
            self._run.signal(number)


class _Fork:
    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path | None) -> None:
        self._process = _forks.Process(target=_be_the_engine, args=(arguments, environment, log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def exit_status(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join(END_SECONDS_MAX)
        if self._process.exitcode is None:
            raise TimeoutError(f"{self.pid} does not end")
        return self._process.exitcode


class _FakedClock:
    """libfaketime has to be there before anything else, so this one begins from nothing."""

    def __init__(self, minutes: int, arguments: tuple[str, ...], environment: dict[str, str], log: Path | None) -> None:
        with (log or Path(os.devnull)).open("ab") as output:
            self._process = subprocess.Popen(
                ["faketime", "-f", f"{minutes:+}m", str(PROGRAM), *arguments],
                # Timeouts and pauses are as long as ever.
                env=environment | {"DONT_FAKE_MONOTONIC": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        # faketime waits for the program that it has started.
        os.killpg(self.pid, number)

    def exit_status(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait(END_SECONDS_MAX)


def _be_the_engine(arguments: tuple[str, ...], environment: dict[str, str], log: Path | None) -> None:
    """What the program `payments-ledger` does, in a session of its own."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    if log:
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
    app(arguments)
