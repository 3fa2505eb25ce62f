"""A connection to the server's protocol without a socket, and an application that notes what it is asked."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from payments_ledger.web.http_edge import BoundedHttp

# Many times what the application and the protocol need for any one request.
TURNS = 50
# A path whose response takes so long.
SLOW = b"/slow"
SLOW_SECONDS = 0.1


@dataclass(frozen=True)
class Seen:
    """A request as the application has it; `body` is None if it never came to its end."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None


@dataclass
class Outcome:
    """What the application saw of a connection, and what the client got."""

    seen: list[Seen] = field(default_factory=list)
    sent: bytes = b""
    is_closed: bool = False

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.sent)]


class _Transport:
    """As much of asyncio's transport as uvicorn uses."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.is_reading = True

    def write(self, data: bytes) -> None:
        if not self._outcome.is_closed:
            self._outcome.sent += data

    def close(self) -> None:
        self._outcome.is_closed = True

    def is_closing(self) -> bool:
        return self._outcome.is_closed

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_extra_info(self, name: str) -> Any:
        return None


async def _note(scope: Scope, receive: Receive, send: Send) -> None:
    outcome: Outcome = scope["state"]["outcome"]
    # In the order in which requests are begun.
    place = len(outcome.seen)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    asked = Seen(scope["method"], target, tuple(scope["headers"]), None)
    outcome.seen.append(asked)
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    outcome.seen[place] = Seen(asked.method, asked.target, asked.headers, body)
    # Like a request that waits for its batch, so that requests behind it queue up.
    await asyncio.sleep(SLOW_SECONDS if target == SLOW else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


_CONFIG = uvicorn.Config(
    _note, http=BoundedHttp, log_config=None, access_log=False, lifespan="off", proxy_headers=False
)


async def _converse(pieces: Iterable[bytes], seconds: float) -> Outcome:
    outcome = Outcome()
    transport = _Transport(outcome)
    protocol = BoundedHttp(_CONFIG, ServerState(), {"outcome": outcome})
    protocol.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        for _ in range(TURNS):
            if transport.is_reading:
                break
            await asyncio.sleep(0)
        if outcome.is_closed or not transport.is_reading:
            break
        protocol.data_received(piece)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    await asyncio.sleep(seconds)
    before = Outcome(list(outcome.seen), outcome.sent, outcome.is_closed)
    protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks)
    return before


def converse(*pieces: bytes, seconds: float = 0) -> Outcome:
    """What has come, so many seconds later, of a connection that sends these pieces, one read each."""
    return asyncio.run(_converse(pieces, seconds))
