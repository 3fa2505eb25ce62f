"""Correlation ids and W3C trace context: taken from a request or an event, shown in logs, passed on."""

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeGuard
from uuid import uuid4

import structlog

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# version-traceid-parentid-flags (W3C Trace Context, section 3.2); an id of zeros is invalid there.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trace:
    """What ties the log lines, events and rows of one request together."""

    correlation_id: str
    traceparent: str | None = None


_current: ContextVar[Trace] = ContextVar("trace")


def is_correlation_id(value: object) -> TypeGuard[str]:
    """Whether the value can be taken over as a correlation id."""
    return isinstance(value, str) and _CORRELATION_ID.fullmatch(value) is not None


def begin_trace(correlation_id: str | None, traceparent: str | None) -> Trace:
    """Makes the given ids the current trace; an unusable one is replaced (correlation id) or dropped."""
    if not is_correlation_id(correlation_id):
        correlation_id = str(uuid4())
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    trace = Trace(correlation_id, traceparent)
    _current.set(trace)
    structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
    return trace


def current_trace() -> Trace:
    """The trace of the request or message at hand; a new one outside of both."""
    return _current.get(None) or begin_trace(None, None)
