"""How a process ends: the first SIGTERM or SIGINT lets it finish in-flight work, a second one ends it at once."""

import asyncio
import multiprocessing
import signal
from collections.abc import Callable
from types import FrameType

# From the end of the grace to the end of the process, whatever hangs. Shorter than Compose's stop_grace_period.
DRAIN_SECONDS_MAX = 25.0

_is_draining = False


def is_draining() -> bool:
    """Whether this process was asked to end: it should get no new work."""
    return _is_draining


def drain_when_asked(shut_down: Callable[[], object], *, grace_seconds: float = 0) -> Callable[[], None]:
    """Calls `shut_down` in the running loop so many seconds after the first SIGTERM or SIGINT; returns how to undo it.

    A second signal ends the process at once, and so does the kernel when DRAIN_SECONDS_MAX have passed after the grace.
    """
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def take(number: int, _: FrameType | None) -> None:
        global _is_draining
        # A server's child process receives Ctrl-C at a terminal twice: by itself, and as its parent's SIGTERM.
        if number in seen or (seen and multiprocessing.parent_process() is None):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not seen:
            _is_draining = True
            # Its default action ends the process, even one whose event loop no longer turns.
            signal.setitimer(signal.ITIMER_REAL, grace_seconds + DRAIN_SECONDS_MAX)
            loop.call_soon_threadsafe(lambda: loop.call_later(grace_seconds, shut_down))
        seen.append(number)

    before = {number: signal.signal(number, take) for number in (signal.SIGTERM, signal.SIGINT)}

    def undo() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
