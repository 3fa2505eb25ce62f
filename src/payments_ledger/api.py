"""Process 1, the API: what it holds while it runs, and every route that it serves."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from payments_ledger.access import routes as access_routes
from payments_ledger.access.passwords import hash_of_nobody
from payments_ledger.access.resources import Resources, provide
from payments_ledger.feed import routes as feed_routes
from payments_ledger.feed.heads import LOOK_SECONDS, Heads
from payments_ledger.ledger import routes as ledger_routes
from payments_ledger.ledger.chart import routes as chart_routes
from payments_ledger.ledger.currencies import keep_currencies, try_to_load
from payments_ledger.ledger.reports import routes as reports_routes
from payments_ledger.ledger.transactions import routes as transactions_routes
from payments_ledger.payments import routes as payments_routes
from payments_ledger.process import failpoints
from payments_ledger.process.draining import drain_when_asked
from payments_ledger.process.garbage_collection import collect_seldom
from payments_ledger.process.periodic import repeat
from payments_ledger.process.settings import Settings
from payments_ledger.refunds import routes as refunds_routes
from payments_ledger.telemetry.logs import configure_logging
from payments_ledger.telemetry.process_metrics import observe_process
from payments_ledger.telemetry.tracing import export_spans, stop_exporting_spans
from payments_ledger.tenants import routes as tenants_routes
from payments_ledger.web import documentation, health, metrics_page
from payments_ledger.web.deadline import Deadline
from payments_ledger.web.openapi import SERVERS, TAGS, complete_document, operation_id
from payments_ledger.web.problems import install_problem_handlers
from payments_ledger.web.request_trail import InternalRoutes, RequestTrail
from payments_ledger.web.routes import DirectRoutes

# What a browser's script of another origin may send and read, besides what it always may.
CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-Tenant-Id", "X-Correlation-Id")
CORS_RESPONSE_HEADERS = (
    "Idempotent-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Correlation-Id",
)


def create_app(settings: Settings) -> FastAPI:
    """The application. It starts without its services and becomes ready once PostgreSQL is reachable."""
    resources = Resources.of(settings)
    checks = health.Checks(settings, resources.database)
    heads = Heads(resources.database)
    app = FastAPI(
        title="Payments Ledger",
        version=version("payments-ledger"),
        description="Payment intents and a double-entry ledger. Amounts are exact decimal strings.",
        lifespan=lambda _: _running(resources, checks, heads),
        docs_url=None,
        openapi_tags=list(TAGS),
        servers=list(SERVERS),
        generate_unique_id_function=operation_id,
        redoc_url=None,
        # A redirect would lead to whatever host the client named.
        redirect_slashes=False,
        # RequestTrail measures requests, and spans.py traces them.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    provide(app, resources)
    _serve(app, resources, checks, heads)
    return app


@asynccontextmanager
async def _running(resources: Resources, checks: health.Checks, heads: Heads) -> AsyncIterator[None]:
    """Holds the resources, and keeps them up to date, while the application serves."""
    hash_of_nobody()
    database = resources.database
    await database.open()
    # Before the first request, unless the database is unavailable: then it goes on in the background.
    await try_to_load(database)
    background = [
        asyncio.create_task(keep_currencies(database)),
        asyncio.create_task(resources.chaos.run()),
        asyncio.create_task(repeat("feed", heads.look, seconds=LOOK_SECONDS)),
        asyncio.create_task(observe_process({"requests": database})),
    ]
    yield
    for task in background:
        task.cancel()
    await checks.close()
    await resources.close()
    stop_exporting_spans()


def _serve(app: FastAPI, resources: Resources, checks: health.Checks, heads: Heads) -> None:
    """Every route of the application, and what a request passes on its way there: the last one added comes first."""
    settings = resources.settings
    routers = (
        access_routes.router,
        payments_routes.router,
        refunds_routes.router,
        ledger_routes.router,
        chart_routes.router,
        transactions_routes.router,
        reports_routes.router,
        feed_routes.router_of(heads),
        tenants_routes.router,
        health.router_of(checks),
        metrics_page.router,
        documentation.router,
    )
    for router in routers:
        app.include_router(router)
    install_problem_handlers(app, resources.refusals.note)
    complete_document(app, routers)
    app.add_middleware(DirectRoutes, routers=routers)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_RESPONSE_HEADERS,
        )
    if settings.internal_port:
        app.add_middleware(InternalRoutes, port=settings.internal_port)
    app.add_middleware(Deadline)
    app.add_middleware(RequestTrail)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))


def create_app_from_environment() -> FastAPI:
    """What a server's process calls, once it takes signals: those come to us first."""
    settings = Settings()
    stop_serving = signal.getsignal(signal.SIGTERM)
    assert callable(stop_serving)
    drain_when_asked(lambda: stop_serving(signal.SIGTERM, None), grace_seconds=settings.shutdown_grace_seconds)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    failpoints.arm(failpoints.read_failpoints(settings.failpoints))
    export_spans("payments-ledger-api")
    app = create_app(settings)
    collect_seldom()
    return app
