"""Spans for OpenTelemetry. Imported only where a collector is named: it needs the extra `tracing`.

They are exported in the background. A collector that is slow or unreachable costs spans, never a payment.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

# How long the end of a process waits for the last spans to reach their collector.
FLUSH_SECONDS_MAX = 3.0

type Attributes = Mapping[str, str | int]


class Span:
    """Something that takes time; `traceparent` makes others its children, in this process or another."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, *, name: str | None = None, attributes: Attributes | None = None, error: str | None = None) -> None:
        """Ends it, with what is only known by now."""
        if name:
            self._span.update_name(name)
        if attributes:
            self._span.set_attributes(dict(attributes))
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class Spans:
    """Where a process's spans begin. Endpoint, sampling and the rest are OpenTelemetry's environment variables."""

    def __init__(self, service: str) -> None:
        """`service` is what the process is called in traces, unless OTEL_SERVICE_NAME says otherwise."""
        resource = Resource.create(
            {
                SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service,
                SERVICE_VERSION: version("payments-ledger"),
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("payments_ledger")

    def start(
        self,
        name: str,
        kind: str,
        *,
        parent: str | None = None,
        links: Iterable[str] = (),
        attributes: Attributes | None = None,
    ) -> Span:
        """`kind` is a member of SpanKind; `parent` and `links` are traceparents, well formed (W3C Trace Context)."""
        context = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), Context()) if parent else Context()
        linked = [Link(_context_of(traceparent)) for traceparent in links]
        return Span(self._tracer.start_span(name, context, SpanKind[kind], dict(attributes or {}), linked))

    def close(self) -> None:
        """Sends what is left, for a bounded time."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS_MAX)


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
