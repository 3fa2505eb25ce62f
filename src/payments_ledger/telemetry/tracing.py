"""Correlation ids and W3C trace context: taken from a request or an event, shown in logs, passed on.

With OTEL_EXPORTER_OTLP_ENDPOINT and the extra `tracing`, spans go to a collector; without, nothing of it is imported.
"""

import os
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import structlog
from uuid_utils import uuid4

if TYPE_CHECKING:
    from payments_ledger.telemetry.spans import Attributes, Span, Spans

log = structlog.get_logger(__name__)

# OpenTelemetry's own variables; the more specific one counts for traces alone.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# version-traceid-parentid-flags (W3C Trace Context, section 3.2); an id of zeros is invalid there.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trace:
    """What ties the log lines, events and rows of one request together."""

    correlation_id: str
    traceparent: str | None = None


_current: ContextVar[Trace] = ContextVar("trace")
_spans: "Spans | None" = None


def is_correlation_id(value: object) -> TypeGuard[str]:
    """Whether the value can be taken over as a correlation id."""
    return isinstance(value, str) and _CORRELATION_ID.fullmatch(value) is not None


def usable_traceparent(value: str | None) -> str | None:
    """The value if it is a well-formed traceparent, else None."""
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None


def begin_trace(correlation_id: str | None, traceparent: str | None) -> Trace:
    """Makes the given ids the current trace; an unusable one is replaced (correlation id) or dropped."""
    if not is_correlation_id(correlation_id):
        correlation_id = str(uuid4())
    trace = Trace(correlation_id, usable_traceparent(traceparent))
    _current.set(trace)
    return trace


def current_trace() -> Trace:
    """The trace of the request or message at hand; a new one outside of both."""
    return _current.get(None) or begin_trace(None, None)


def add_trace(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For structlog: the ids of the trace at hand in each line, unless it names others."""
    if trace := _current.get(None):
        line.setdefault("correlation_id", trace.correlation_id)
        if trace.traceparent:
            line.setdefault("trace_id", trace_id_of(trace.traceparent))
    return line


def trace_id_of(traceparent: str) -> str:
    """The second of the four fields of a well-formed traceparent."""
    return traceparent[3:35]


def export_spans(service: str) -> None:
    """Has the spans of this process exported, if the environment names a collector; `service` is its name there."""
    global _spans  # one for each process, like the environment that decides upon it
    if not any(map(os.environ.get, ENDPOINTS)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from payments_ledger.telemetry.spans import Spans
    except ModuleNotFoundError as error:
        log.warning("no traces", reason=f"{error.name} is not installed: pip install payments-ledger[tracing]")
        return
    _spans = Spans(service)


def stop_exporting_spans() -> None:
    """Sends what is left, for at most some seconds."""
    global _spans
    spans, _spans = _spans, None
    if spans:
        spans.close()


def exports_spans() -> bool:
    """Whether spans of this process go to a collector."""
    return _spans is not None


def start_span(
    name: str,
    kind: str,
    *,
    parent: str | None = None,
    links: "Iterable[str | None]" = (),
    attributes: "Attributes | None" = None,
) -> "Span | None":
    """A span, child of the traceparent `parent`, or None while none are exported; `kind` as in SpanKind."""
    if _spans is None:
        return None
    return _spans.start(name, kind, parent=usable_traceparent(parent), links=filter(None, links), attributes=attributes)


def traceparent_to_link() -> str | None:
    """The current traceparent, while spans are exported: what works for many requests at once links to each."""
    return current_trace().traceparent if _spans else None
