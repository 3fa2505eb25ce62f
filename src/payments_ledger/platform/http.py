"""What every request passes first: its trace begins, its answer is counted, its unforeseen errors are caught."""

import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_ledger.platform.metrics import HTTP_REQUESTS, HTTP_SECONDS
from payments_ledger.platform.problems import MEDIA_TYPE, internal_error_body
from payments_ledger.platform.tracing import begin_trace

log = structlog.get_logger(__name__)

# Requests for paths that are no route share one label, so that a scanner cannot grow the metrics.
NO_ROUTE = "unmatched"
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
        trace = begin_trace(headers.get("x-correlation-id"), headers.get("traceparent"))
        began = time.perf_counter()
        status = 0
        # One dictionary for all who see this request, however often its scope is copied.
        state = scope.setdefault("state", {})

        async def send_with_trace(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Correlation-Id"] = trace.correlation_id
                if usage := state.get("rate_limit"):
                    answer["RateLimit-Policy"] = usage.policy_field
                    answer["RateLimit"] = usage.state_field
                if trace.traceparent:
                    answer["traceparent"] = trace.traceparent
            await send(message)

        try:
            await self._app(scope, receive, send_with_trace)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise
            await _send_internal_error(scope["path"], send_with_trace)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            HTTP_REQUESTS.labels(method, route, str(status)).inc()
            HTTP_SECONDS.labels(method, route).observe(time.perf_counter() - began)


async def _send_internal_error(path: str, send: Send) -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": internal_error_body(path)})
