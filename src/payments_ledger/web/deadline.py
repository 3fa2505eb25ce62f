"""The deadline of every response: a client does not wait for a database that neither responds nor refuses."""

import asyncio

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_ledger.errors import OutcomeUnknown
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.web.problems import MEDIA_TYPE, problem_body, status_of

log = structlog.get_logger(__name__)

# Counted from the last byte of the request. The group commit's own bound is shorter, so this one is met where
# something hangs that has none: a read from a server that was stopped, or a network that swallows every packet.
RESPONSE_SECONDS_MAX = 4.8

# Where a request's scope has its clock.
_KEY = "payments_ledger.deadline"


class Deadline:
    """ASGI middleware: responds 503 when the deadline has passed. The work goes on, and its result is dropped.

    The clock is a timer, because a task for each request and the headers took 8 to 10 % of its time (ADR 33).
    The work is not cancelled: psycopg would first ask the same mute server to cancel the statement, and wait for that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = scope[_KEY] = _Request(scope, receive, send)
        try:
            await self._app(scope, request.receive, request.send)
        except Exception as error:
            if not request.is_abandoned:
                raise
            log.warning("abandoned request failed", reason=f"{type(error).__name__}: {error}")
        finally:
            await request.end()


def extend_deadline(scope: Scope, seconds: float) -> None:
    """Gives the response so much more time, from now on: the request asked for something that may take it."""
    request: _Request = scope[_KEY]
    request.extend(seconds)


class _Request:
    """A request that may get its response in the application's place; its clock runs from the beginning."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._problem: asyncio.Task[None] | None = None
        self._has_begun = False
        self._start_clock()

    @property
    def is_abandoned(self) -> bool:
        return self._problem is not None

    async def receive(self) -> Message:
        """The client's time is not ours; how long a body may take is bounded elsewhere."""
        self._clock.cancel()
        try:
            return await self._receive()
        finally:
            self._start_clock()

    async def send(self, message: Message) -> None:
        """Passes the application's response on; what it sends after the deadline is dropped."""
        if not self.is_abandoned:
            self._has_begun = True
            self._clock.cancel()
            await self._send(message)

    async def end(self) -> None:
        """Once this returns the server takes the response for complete, so a 503 has to be sent by then."""
        self._clock.cancel()
        if self._problem is not None:
            await self._problem

    def extend(self, seconds: float) -> None:
        """Starts the clock anew, with more on it."""
        self._clock.cancel()
        self._start_clock(seconds)

    def _start_clock(self, more_seconds: float = 0) -> None:
        self._clock = asyncio.get_running_loop().call_later(RESPONSE_SECONDS_MAX + more_seconds, self._abandon)

    def _abandon(self) -> None:
        if not self._has_begun:
            log.error("request abandoned", method=self._scope["method"], path=self._scope["path"])
            self._problem = asyncio.create_task(_send_problem(OutcomeUnknown(), self._scope["path"], self._send))


async def _send_problem(error: OutcomeUnknown, path: str, send: Send) -> None:
    body = problem_body(error, instance=path, correlation_id=current_trace().correlation_id)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"retry-after", str(error.retry_after_seconds).encode())]
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
