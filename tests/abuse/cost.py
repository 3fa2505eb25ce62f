"""What an attack costs a process: its processor time, its memory at most, and how long others wait meanwhile."""

import asyncio
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]  # comes with the embedded PostgreSQL

# So often somebody else asks, whether the request before was answered or not.
PROBE_SECONDS = 0.02
PROBE_TIMEOUT_SECONDS = 30.0
PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """Of one process, while the attack went on. `failed` of the `asked` requests of others were not answered by 200."""

    seconds: float
    cpu_seconds: float
    growth_mib: float
    p99_ms: float
    asked: int
    failed: int
    outcomes: Counter[str]


def measure(pid: int, port: int, attack: Callable[[], Counter[str]]) -> Cost:
    """Runs the attack beside others' requests. It must be picklable: it gets a process of its own."""
    process = psutil.Process(pid)
    others = _Others(port, process)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as attacker:
        # It has imported everything before anything is measured.
        attacker.submit(_ready).result()
        memory, cpu, began = process.memory_info().rss, _cpu_seconds(process), time.monotonic()
        others.start()
        outcomes = attacker.submit(attack).result()
        seconds = time.monotonic() - began
        others.finish()
    waits = sorted(others.waits)
    return Cost(
        seconds=seconds,
        cpu_seconds=_cpu_seconds(process) - cpu,
        growth_mib=max(0, others.memory_max - memory) / MIB,
        p99_ms=waits[len(waits) * 99 // 100] * 1000,
        asked=len(waits),
        failed=others.failed,
        outcomes=outcomes,
    )


def _ready() -> None: ...


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class _Others:
    """Somebody who asks at fixed times, in a thread. A wait begins when the request was due."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.waits: list[float] = []
        self.failed = 0
        self.memory_max = 0
        self._port = port
        self._process = process
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_until_the_end()))

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._ends.set()
        self._thread.join()

    async def _ask_until_the_end(self) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as asking:
            while not self._ends.is_set():
                asking.create_task(self._ask(due))
                self.memory_max = max(self.memory_max, self._process.memory_info().rss)
                due += PROBE_SECONDS
                await asyncio.sleep(due - time.monotonic())

    async def _ask(self, due: float) -> None:
        answer = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(PROBE)
                answer = await reader.read()
                writer.close()
        self.failed += not answer.startswith(b"HTTP/1.1 200 ")
        self.waits.append(time.monotonic() - due)
