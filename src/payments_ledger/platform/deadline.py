"""The deadline of every answer: a client is not kept waiting by a database that neither answers nor refuses."""

import asyncio
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_ledger.errors import OutcomeUnknown
from payments_ledger.platform.problems import MEDIA_TYPE, problem_body, status_of
from payments_ledger.platform.tracing import current_trace

log = structlog.get_logger(__name__)

# Counted from the last byte of the request. The group commit's own bound is shorter, so this one is met where
# something hangs that has none: a read from a server that was stopped, or a network that swallows every packet.
ANSWER_SECONDS_MAX = 4.8


class Deadline:
    """ASGI middleware: answers 503 when the time is over. The work is left to end by itself, and nobody hears of it.

    It is not cancelled: psycopg would first ask the same mute server to cancel the statement, and wait for that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._abandoned: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ends = time.monotonic() + ANSWER_SECONDS_MAX
        waits_for_client = answers = is_abandoned = False

        async def receive_from_client() -> Message:
            """The client's time is not ours; how long a body may take is bounded elsewhere."""
            nonlocal ends, waits_for_client
            waits_for_client = True
            try:
                return await receive()
            finally:
                waits_for_client = False
                ends = time.monotonic() + ANSWER_SECONDS_MAX

        async def send_in_time(message: Message) -> None:
            nonlocal answers
            if not is_abandoned:
                answers = True
                await send(message)

        work = asyncio.ensure_future(self._app(scope, receive_from_client, send_in_time))
        try:
            while not work.done() and (answers or waits_for_client or time.monotonic() < ends):
                seconds = ANSWER_SECONDS_MAX if answers or waits_for_client else ends - time.monotonic()
                await asyncio.wait([work], timeout=max(seconds, 0.001))
        except asyncio.CancelledError:
            work.cancel()
            raise
        if work.done():
            work.result()
            return
        is_abandoned = True
        self._abandoned.add(work)
        work.add_done_callback(self._forget)
        log.error("request abandoned", method=scope["method"], path=scope["path"])
        await _send_problem(OutcomeUnknown(), scope["path"], send)

    def _forget(self, work: asyncio.Future[None]) -> None:
        self._abandoned.discard(work)
        if not work.cancelled() and (error := work.exception()):
            log.warning("abandoned request failed", reason=f"{type(error).__name__}: {error}")


async def _send_problem(error: OutcomeUnknown, path: str, send: Send) -> None:
    body = problem_body(error, instance=path, correlation_id=current_trace().correlation_id)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"retry-after", str(error.retry_after_seconds).encode())]
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
