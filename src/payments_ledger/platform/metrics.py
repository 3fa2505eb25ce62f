"""The metrics of HTTP requests, and the page that Prometheus reads. Each module defines its own where it counts."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

# From a healthy answer's few milliseconds to the five seconds within which every request is answered.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

HTTP_REQUESTS = Counter("ledger_http_requests_total", "Requests answered", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "ledger_http_request_seconds", "Time to answer a request", ["method", "route"], buckets=LATENCY_BUCKETS
)

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=Response)
async def get_metrics() -> Response:
    """The process's metrics in the Prometheus text format."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
