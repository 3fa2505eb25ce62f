"""What sends requests: wrk as fast as the answers come, and a client of our own that keeps to a schedule."""

import asyncio
import gc
import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Literal, cast
from uuid import uuid4

from bench.servers import Caller

SCRIPT = Path(__file__).with_name("requests.lua")
CREATE_PATH = "/v1/payment-intents"

type Mode = Literal["pay", "replay", "read", "bulk", "refund", "transfer"]


class LoadFailed(RuntimeError):
    """An answer was not the expected one: figures of such a run would say nothing."""


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What one run of wrk counted; `requests` were answered; two of them, create and confirm, make a payment."""

    seconds: float
    payments: float
    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @property
    def payments_a_second(self) -> float:
        return self.payments / self.seconds

    @property
    def requests_a_second(self) -> float:
        return self.requests / self.seconds


def wrk(
    base_url: str,
    callers: Sequence[Caller],
    folder: Path,
    *,
    mode: Mode = "pay",
    connections: int,
    seconds: float,
    path: str = "",
    body: str = "",
    nonce: str | None = None,
) -> WrkResult:
    """Runs wrk; raises LoadFailed if one answer was not the expected one, or a connection broke.

    wrk sends the next request of a connection when it has the answer: it measures how much goes through. Its latencies
    are those at full load.
    """
    run = nonce or uuid4().hex
    callers_file = folder / "callers"
    callers_file.write_text("".join(f"{caller.tenant_id}\t{caller.token}\n" for caller in callers))
    body_file = folder / "body"
    body_file.write_text(body)
    environment = {
        "BENCH_MODE": mode,
        "BENCH_CALLERS": str(callers_file),
        "BENCH_NONCE": run,
        "BENCH_PATH": path,
        "BENCH_BODY": str(body_file),
    }
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--timeout", "10s", "-s", str(SCRIPT)]
    done = subprocess.run(
        [*command, base_url],
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise LoadFailed(f"wrk: {done.stdout}{done.stderr}")
    return read_wrk(done.stdout)


def read_wrk(output: str) -> WrkResult:
    """The result in the last line that requests.lua wrote; raises LoadFailed."""
    counted = json.loads(output.rstrip().rpartition("\n")[2])
    faults = ("unexpected", "connect_errors", "read_errors", "write_errors", "timeouts")
    if any(counted[name] for name in faults):
        found = ", ".join(f"{name}: {counted[name]}" for name in faults if counted[name])
        raise LoadFailed(f"{found}; the first: {counted['example'] or 'none'}")
    return WrkResult(
        seconds=counted["seconds"],
        # A payment is two requests; on the way from one to the other it is half of one.
        payments=(counted["created"] + counted["confirmed"]) / 2,
        requests=counted["created"] + counted["confirmed"] + counted["other"],
        p50_ms=counted["p50_ms"],
        p90_ms=counted["p90_ms"],
        p99_ms=counted["p99_ms"],
        max_ms=counted["max_ms"],
    )


@dataclass
class PacedResult:
    """What a schedule of payments brought: latencies in milliseconds, counted from when each request was due."""

    started: int = 0
    confirmed: int = 0
    create_ms: list[float] = field(default_factory=list)
    confirm_ms: list[float] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, on_free: Callable[["_Connection"], None], on_lost: Callable[[Exception], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._buffer = b""
        self._answered: Callable[[int, bytes], None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self.transport = cast("asyncio.Transport", transport)
        self._on_free(self)

    def send(self, request: bytes, answered: Callable[[int, bytes], None]) -> None:
        assert self.transport is not None
        self._answered = answered
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        answered, self._answered, self._buffer = self._answered, None, b""
        assert answered is not None
        answered(int(head[9:12]), rest)
        self._on_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None:
            self._on_lost(exc or ConnectionResetError("the connection was closed before its answer"))


class PacedClient:
    """Creates and confirms payments through a fixed number of connections.

    Each request has a time at which it is due; if all connections are busy then it waits, and its latency counts from
    when it was due. So a server that stalls is charged for every request of the stall (no coordinated omission). A
    confirm is due the moment its create is answered. Connections serve confirms first.
    """

    def __init__(self, base_url: str, callers: Sequence[Caller], *, connections: int) -> None:
        self._host, _, port = base_url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._connections = connections
        self._heads = cycle(
            [
                "".join(f"{name}: {value}\r\n" for name, value in {"Host": "bench", **caller.headers}.items())
                for caller in callers
            ]
        )
        self._nonce = uuid4().hex
        self._number = 0
        # The one that has rested longest is next: the server closes a connection that rests for five seconds.
        self._free: deque[_Connection] = deque()
        self._all: list[_Connection] = []
        self._due: deque[tuple[float, bytes, str]] = deque()
        self._to_confirm: deque[tuple[float, bytes]] = deque()
        self._failure: Exception | None = None
        self.result = PacedResult()

    async def __aenter__(self) -> "PacedClient":
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._send_next, self._fail), self._host, self._port
            )
            self._all.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.close()

    @property
    def is_idle(self) -> bool:
        return len(self._free) == self._connections and not self._due and not self._to_confirm

    def start_payment(self, due: float) -> None:
        """Has a payment created, and then confirmed; `due` is a time of time.perf_counter()."""
        if self._failure is not None:
            raise self._failure
        self._number += 1
        self.result.started += 1
        head = next(self._heads)
        body = f'{{"amount": 100.00, "currency": "BRL", "customer_ref": "CUST-{self._number}"}}'
        request = (
            f"POST {CREATE_PATH} HTTP/1.1\r\n{head}Idempotency-Key: {self._nonce}-{self._number}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self._due.append((due, request, head))
        if self._free:
            self._send_next(self._free.popleft())

    async def run_rate(self, rate: float, seconds: float) -> None:
        """Starts `rate` payments a second for `seconds`, and returns when all are answered."""
        interval = 1 / rate
        begin = time.perf_counter() + 0.01
        total = round(rate * seconds)
        done = 0
        while done < total:
            now = time.perf_counter()
            while done < total and begin + done * interval <= now:
                self.start_payment(begin + done * interval)
                done += 1
            await asyncio.sleep(max(begin + done * interval - time.perf_counter(), 0))
        await self.finish()

    async def finish(self, seconds_max: float = 30) -> None:
        """Returns when nothing is on its way; raises what went wrong."""
        deadline = time.perf_counter() + seconds_max
        while not self.is_idle:
            if self._failure is not None:
                raise self._failure
            if time.perf_counter() > deadline:
                raise LoadFailed(f"not answered within {seconds_max} s")
            await asyncio.sleep(0.005)

    def _send_next(self, connection: _Connection) -> None:
        if self._to_confirm:
            due, request = self._to_confirm.popleft()
            connection.send(request, lambda status, body: self._confirmed(due, status, body))
        elif self._due:
            due, request, head = self._due.popleft()
            connection.send(request, lambda status, body: self._created(due, head, status, body))
        else:
            self._free.append(connection)

    def _created(self, due: float, head: str, status: int, body: bytes) -> None:
        now = time.perf_counter()
        if status != 201:
            self._fail(LoadFailed(f"create: {status} {body[:300]!r}"))
            return
        self.result.create_ms.append((now - due) * 1e3)
        at = body.index(b'"id":"') + 6
        payment_id = body[at : body.index(b'"', at)].decode()
        # Its own connection is free right after this, and takes it.
        self._to_confirm.append(
            (
                now,
                f"POST {CREATE_PATH}/{payment_id}/confirm HTTP/1.1\r\n{head}"
                f"Idempotency-Key: {self._nonce}-{payment_id}\r\nContent-Length: 0\r\n\r\n".encode(),
            )
        )

    def _confirmed(self, due: float, status: int, body: bytes) -> None:
        if status != 200:
            self._fail(LoadFailed(f"confirm: {status} {body[:300]!r}"))
            return
        self.result.confirm_ms.append((time.perf_counter() - due) * 1e3)
        self.result.confirmed += 1

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error


@contextmanager
def without_pauses() -> Iterator[None]:
    """The client's own garbage collection must not look like the server's latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
