"""One payment over API, relay and worker: found in the logs by its correlation id, and seen as one trace."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.acceptance.client import confirm, create, logged_in, settled
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port

HTTP_SPAN = "POST /v1/payment-intents/{payment_id}/confirm"


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex, as a traceparent has them."""

    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    links: frozenset[str]
    attributes: dict[str, Any]


@dataclass
class Collector:
    """An OTLP/HTTP collector that keeps what it gets."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)

    def named(self, name: str, has: Callable[[Span], bool] = lambda _: True) -> Span | None:
        return next((span for span in list(self.spans) if span.name == name and has(span)), None)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            service = {pair.key: pair.value.string_value for pair in group.resource.attributes}["service.name"]
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            service,
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            frozenset(link.span_id.hex() for link in span.links),
                            {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes},
                        )
                    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_port
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield collector
    server.shutdown()
    serving.join()
    server.server_close()


def traced(engine: Engine, port: int, logs: Path) -> Engine:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "LOG_LEVEL": "DEBUG",
    }
    return replace(engine, environment=engine.environment | variables, logs=logs)


def lines(log: Path, correlation_id: str) -> list[dict[str, Any]]:
    """What `grep correlation_id log` finds."""
    return [json.loads(line) for line in log.read_text().splitlines() if correlation_id in line]


def test_a_payment_is_one_trace_over_api_relay_and_worker_and_is_found_in_all_logs_by_its_correlation_id(
    engine: Engine, collector: Collector, tmp_path: Path
) -> None:
    correlation_id = f"corr-{uuid4()}"
    observed = traced(engine, collector.port, tmp_path)
    with observed.api(), observed.worker(), logged_in(observed) as client:
        client.headers["X-Correlation-Id"] = correlation_id
        payment_id = create(client).json()["id"]
        confirm(client, payment_id).raise_for_status()
        eventually(lambda: settled(client, payment_id))
        request = eventually(
            lambda: collector.named(HTTP_SPAN, lambda span: span.attributes["correlation_id"] == correlation_id)
        )

        def within(name: str) -> Span:
            return eventually(lambda: collector.named(name, lambda span: span.trace_id == request.trace_id))

        published, processed = within("publish payment.authorized"), within("process payment.authorized")
        settled_span = within("publish payment.settled")
        # A batch serves many: it is a trace of its own, with a link to each whose command it carried out.
        for served in (request, processed):
            eventually(lambda served=served: collector.named("commit batch", lambda span: served.id in span.links))  # type: ignore[misc]
    assert (request.service, processed.service) == ("payments-ledger-api", "payments-ledger-worker")
    assert request.attributes["http.response.status_code"] == 200
    assert request.parent == ""
    assert (published.parent, processed.parent, settled_span.parent) == (request.id, published.id, processed.id)
    assert not [span for span in collector.spans if "readyz" in span.name]

    in_api, in_worker = lines(tmp_path / "api.log", correlation_id), lines(tmp_path / "worker.log", correlation_id)
    confirmed = [line for line in in_api if line["path"].endswith("/confirm")]
    assert [(line["event"], line["status"], line["level"]) for line in confirmed] == [("request", 200, "info")]
    worked = {(line["event"], line.get("type")) for line in in_worker if line["trace_id"] == request.trace_id}
    assert worked == {
        ("event published", "payment.authorized"),
        ("event published", "payment.settled"),
        ("payment settled", None),
    }
    assert {line["correlation_id"] for line in in_api + in_worker} == {correlation_id}
    assert {line["trace_id"] for line in confirmed} == {request.trace_id}


def test_a_collector_that_is_away_harms_nothing(engine: Engine, tmp_path: Path) -> None:
    """Payments settle, and both processes end in good order, which `process` checks."""
    observed = traced(engine, free_port(), tmp_path)
    with observed.api(), observed.worker(), logged_in(observed) as client:
        payment_id = create(client).json()["id"]
        confirm(client, payment_id).raise_for_status()
        eventually(lambda: settled(client, payment_id))


def test_without_a_collector_neither_spans_nor_exporter_are_imported(engine: Engine) -> None:
    """Some of OpenTelemetry is there all the same: the client of Redis imports it for metrics of its own."""
    script = """
import asyncio, signal, sys
from payments_ledger.api import create_app_from_environment
import payments_ledger.worker

async def serve():
    signal.signal(signal.SIGTERM, lambda *_: None)  # as the server does before it asks for the application
    create_app_from_environment()

asyncio.run(serve())
print([name for name in sys.modules if name.startswith(("opentelemetry.exporter", "payments_ledger.telemetry.spans"))])
"""
    python = (PROGRAM.with_name("python"), "-c", script)
    done = subprocess.run(python, env=engine.environment, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
