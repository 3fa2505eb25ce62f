"""What every request passes first: its trace begins, its response is counted, its unforeseen errors are caught."""

import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_ledger.errors import NotFound
from payments_ledger.telemetry.metrics import count_answer
from payments_ledger.telemetry.tracing import Trace, begin_trace, current_trace, start_span
from payments_ledger.web import documentation
from payments_ledger.web.problems import MEDIA_TYPE, internal_error_body, problem_body

if TYPE_CHECKING:
    from payments_ledger.telemetry.spans import Span

log = structlog.get_logger(__name__)

# Requests for paths that are no route share one label, so that a scanner cannot grow the metrics.
NO_ROUTE = "unmatched"
# What an operator looks at, and what a probe may ask at either port.
INTERNAL_PATHS = documentation.PATHS | {"/metrics", "/openapi.json"}
PATHS_OF_EITHER_PORT = frozenset({"/healthz", "/readyz"})
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
DATA_HEADERS = (*_HEADERS, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
PAGE_HEADERS = (*_HEADERS, (b"content-security-policy", documentation.PAGE_POLICY.encode()))
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UNTRACED_PATHS = INTERNAL_PATHS | PATHS_OF_EITHER_PORT
# What a request's span is called until its route is known.
HTTP = "HTTP"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestTrail:
    """ASGI middleware: correlation id in and out, request metrics, and a problem document for unforeseen errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent = headers.get("traceparent")
        span = None if scope["path"] in UNTRACED_PATHS else start_span(HTTP, "SERVER", parent=sent)
        trace = begin_trace(headers.get("x-correlation-id"), span.traceparent if span else sent)
        began = time.perf_counter()
        status = 0
        seconds = 0.0
        # One dictionary for all who see this request, however often its scope is copied.
        state = scope.setdefault("state", {})

        async def send_with_trace(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = time.perf_counter() - began
                added = [*_security_headers(message["headers"]), (b"x-correlation-id", trace.correlation_id.encode())]
                if usage := state.get("rate_limit"):
                    added.append((b"ratelimit-policy", usage.policy_field.encode()))
                    added.append((b"ratelimit", usage.state_field.encode()))
                if trace.traceparent:
                    added.append((b"traceparent", trace.traceparent.encode()))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            await self._app(scope, receive, send_with_trace)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise
            body = internal_error_body(scope["path"])
            await _send_problem(HTTPStatus.INTERNAL_SERVER_ERROR, body, send_with_trace)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            count_answer(method, route, status, seconds)
            # Reads would fill the log; the metrics count them.
            write = log.debug if method in SAFE_METHODS else log.info
            write("request", method=method, path=scope["path"], status=status, ms=round(seconds * 1000, 1))
            if span:
                _end(span, method, route, status, trace)


def _end(span: "Span", method: str, route: str, status: int, trace: Trace) -> None:
    """By OpenTelemetry's conventions for HTTP servers: a refused request is no error of the server's."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "correlation_id": trace.correlation_id,
    }
    is_error = status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    span.end(name=f"{method} {route}", attributes=attributes, error=f"status {status}" if is_error else None)


class InternalRoutes:
    """ASGI middleware: on the internal port the operator's pages and nothing else, on any other port all but those."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PATHS_OF_EITHER_PORT:
            came_inside = scope["server"] is not None and scope["server"][1] == self._port
            if came_inside != (scope["path"] in INTERNAL_PATHS):
                # Like any path that does not exist.
                body = problem_body(
                    NotFound("Not Found"), instance=scope["path"], correlation_id=current_trace().correlation_id
                )
                await _send_problem(HTTPStatus.NOT_FOUND, body, send)
                return
        await self._app(scope, receive, send)


def _security_headers(headers: Sequence[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Responses are data for programs: not to be stored, guessed at, or shown in a frame. HSTS is up to the proxy."""
    names = dict(headers)
    yield from PAGE_HEADERS if names.get(b"content-type", b"").startswith(b"text/html") else DATA_HEADERS
    if b"cache-control" not in names:
        yield (b"cache-control", b"no-store")


async def _send_problem(status: int, body: bytes, send: Send) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
