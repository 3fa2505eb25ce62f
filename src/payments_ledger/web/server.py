"""The HTTP server of our processes: uvicorn behind the bounds of `http_edge`."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from payments_ledger.process.draining import is_draining
from payments_ledger.web.http_edge import BoundedHttp


class _TurnTransport:
    """A transport that sends what is written in one turn of the event loop in one piece.

    uvicorn writes the head of a response and its body one after the other, and uvloop (from 0.23 on) sends each write
    at once: two system calls for us, and two packets for the client.

    Hand-optimised (ADR 36): a create or a replay takes 0.93 to 0.96 of this process's time. It may be deleted once
    uvloop, as up to 0.22, gathers the writes of a turn itself.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._turn = asyncio.get_running_loop()
        self._buffered: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._buffered:
            self._turn.call_soon(self._send)
        self._buffered.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        buffered, self._buffered = self._buffered, []
        # A client that has gone reads nothing more.
        if buffered and not self._transport.is_closing():
            self._transport.write(b"".join(buffered))


class EngineHttp(BoundedHttp):
    """The bounded protocol, as our processes speak it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", _TurnTransport(transport)))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if is_draining():
            # The client's next request then goes elsewhere, rather than into a connection that is about to close.
            self.cycle.keep_alive = False


class Supervisor(Multiprocess):
    """uvicorn's supervisor of several server processes, ended at once with them by a second signal."""

    def terminate_all(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end_at_once)
        super().terminate_all()

    def _end_at_once(self, number: int, _: FrameType | None) -> None:
        for process in self.processes:
            process.process.kill()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the port, for a server that will accept there; raises OSError if it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # What earlier connections left behind does not hold up a restart.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # A port is had by whoever listens: two that are merely bound, with SO_REUSEADDR, may be bound to the same one.
        bound.listen()
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


class _Server(uvicorn.Server):
    """A server that leaves the signals to us: they end the whole process, not only what it serves."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_beside(app: ASGIApp) -> uvicorn.Server:
    """A server for a process that does something else as well; it ends when its `should_exit` is set."""
    config = uvicorn.Config(
        app,
        http=EngineHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    return _Server(config)


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serves at the listener, if there is one, while the block runs."""
    if listener is None:
        yield
        return
    server = server_beside(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
