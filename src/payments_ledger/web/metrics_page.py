"""GET /metrics: the page that Prometheus reads."""

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from payments_ledger.telemetry.metrics import metrics_page
from payments_ledger.web.problems import documented
from payments_ledger.web.routes import Route

METRICS_EXAMPLE = """# HELP ledger_http_requests_total Requests answered
# TYPE ledger_http_requests_total counter
ledger_http_requests_total{method="GET",route="/v1/me",status="200"} 7.0
"""

router = APIRouter(tags=["operation"], route_class=Route)


@router.get(
    "/metrics",
    summary="Show the metrics",
    response_class=Response,
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY)
    | {
        200: {
            "description": "The Prometheus text format",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": METRICS_EXAMPLE}},
        }
    },
)
async def get_metrics() -> Response:
    """The server's metrics in the Prometheus text format, of all its processes."""
    # In a thread: requests need not wait while some hundred lines are written.
    return Response(await asyncio.to_thread(metrics_page), headers={"Content-Type": CONTENT_TYPE_LATEST})
