"""The HTTP server and its limits: what a connection may send before we know what it wants, and how long it may take."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from payments_ledger.platform.leaving import is_leaving

# Request line and headers. Room for a token, and for a header that is too long to be told so by name.
HEAD_BYTES_MAX = 32 * 1024
# From the first byte, or from the opening of the connection, to the end of the head.
HEAD_SECONDS_MAX = 10.0

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class _HeadWithBody:
    """A transport that keeps the head of an answer until its body is there: one write, and one packet, for both.

    uvicorn writes them one after the other, and uvloop (from 0.23 on) sends each write at once.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            # A body that comes later, or not at all, does not hold up its head.
            asyncio.get_running_loop().call_soon(self._send_head)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head and not self._transport.is_closing():
            self.write(b"")


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with the two limits that it lacks: the size of a head, and the time for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", _HeadWithBody(transport)))
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            # The parser tells of a header when it has all of it, so an endless one shows only here.
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse_head()
                return
        # Blank lines between requests end uvicorn's own watch over an idle connection without beginning a request.
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._watch_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES_MAX:
            self._refuse_head()
            raise httptools.HttpParserError("The head is too large")
        self._in_head = False
        self._head_is_there()
        super().on_headers_complete()
        if is_leaving() and self.cycle is not None:
            # The client's next request then goes elsewhere, rather than into a connection that is about to close.
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()


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
    """A socket that has the port, for a server that will listen at it; raises OSError if it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # What earlier connections left behind does not hold up a restart.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
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
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    return _Server(config)
