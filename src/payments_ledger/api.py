"""Process 1, the API: what it holds, and every route that it serves."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from payments_ledger.access import routes as auth_routes
from payments_ledger.access.access_cache import AccessCache
from payments_ledger.access.attempts import attempts_of
from payments_ledger.access.logins import Logins
from payments_ledger.access.passwords import hash_of_nobody
from payments_ledger.access.refusals import Refusals
from payments_ledger.access.tokens import Tokens
from payments_ledger.chaos.faults import chaos_of
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.ledger import routes as ledger_routes
from payments_ledger.ledger.currencies import keep_currencies, try_to_load
from payments_ledger.payments import routes as payments_routes
from payments_ledger.postgres.database import LOOKUP_SETTINGS, Database
from payments_ledger.postgres.roles import runtime_role
from payments_ledger.process import failpoints
from payments_ledger.process.draining import drain_when_asked
from payments_ledger.process.garbage_collection import collect_seldom
from payments_ledger.process.settings import Settings
from payments_ledger.telemetry.logs import configure_logging
from payments_ledger.telemetry.process_metrics import observe_process
from payments_ledger.telemetry.tracing import export_spans, stop_exporting_spans
from payments_ledger.tenants import routes as admin_routes
from payments_ledger.web import documentation, health, metrics_page
from payments_ledger.web.cursors import CursorSigner
from payments_ledger.web.deadline import Deadline
from payments_ledger.web.exact_requests import DirectRoutes
from payments_ledger.web.openapi import SERVERS, TAGS, complete_document, operation_id
from payments_ledger.web.problems import install_problem_handlers
from payments_ledger.web.rate_limit import RateLimiter, counters_of
from payments_ledger.web.request_trail import InternalRoutes, RequestTrail

# What a browser's script of another origin may send and read, besides what it always may.
CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-Tenant-Id", "X-Correlation-Id")
CORS_ANSWER_HEADERS = (
    "Idempotent-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Correlation-Id",
)

# Bulk requests that may wait in one process: some 10 MB, and no longer than their clients do.
BULK_QUEUE_SIZE_MAX = 20


def create_app(settings: Settings) -> FastAPI:
    """The application. It starts without its services and serves as soon as PostgreSQL is there."""
    url = settings.database_url
    secret = settings.jwt_secret.get_secret_value()
    database = Database(
        url,
        role=runtime_role(url),
        pool_size_max=settings.database_pool_size,
        server_settings=LOOKUP_SETTINGS,
    )
    commands = GroupCommit(database.transaction)
    # A bulk request is a batch by itself, and a few of them are a full queue.
    bulk_commands = GroupCommit(database.transaction, batch_size_max=1, queue_size_max=BULK_QUEUE_SIZE_MAX)
    counters = counters_of(settings.redis_url)
    attempts = attempts_of(settings.redis_url)
    access = AccessCache(database.transaction)
    refusals = Refusals(database.transaction)
    chaos = chaos_of(settings)

    @asynccontextmanager
    async def hold_resources(app: FastAPI) -> AsyncIterator[None]:
        hash_of_nobody()
        await database.open()
        # Before the first request, unless the database is unavailable: then it goes on in the background.
        await try_to_load(database)
        currencies = asyncio.create_task(keep_currencies(database))
        keeping_up = asyncio.create_task(chaos.run())
        vitals = asyncio.create_task(observe_process({"requests": database}))
        async with health.checks_of(settings, database) as app.state.checks:
            yield
        currencies.cancel()
        keeping_up.cancel()
        vitals.cancel()
        await chaos.close()
        await commands.drain()
        await bulk_commands.drain()
        await counters.close()
        await attempts.close()
        await access.drain()
        await refusals.drain()
        await database.close()
        stop_exporting_spans()

    app = FastAPI(
        title="Payments Ledger",
        version=version("payments-ledger"),
        description="Payment intents and a double-entry ledger. Amounts are exact decimal texts.",
        lifespan=hold_resources,
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
    app.state.settings = settings
    app.state.database = database
    app.state.commands = commands
    app.state.bulk_commands = bulk_commands
    app.state.rate_limiter = RateLimiter(settings, counters)
    app.state.logins = Logins(settings, counters, attempts)
    app.state.access = access
    app.state.refusals = refusals
    app.state.chaos = chaos
    app.state.cursors = CursorSigner(secret)
    app.state.tokens = Tokens(
        secret=secret,
        secrets_previous=[previous.get_secret_value() for previous in settings.jwt_secrets_previous],
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime_seconds=settings.token_expires_seconds,
    )

    app.include_router(auth_routes.login_router)
    app.include_router(auth_routes.router)
    app.include_router(payments_routes.router)
    app.include_router(ledger_routes.router)
    app.include_router(admin_routes.router)
    app.include_router(health.router)
    app.include_router(metrics_page.router)
    app.include_router(documentation.router)

    install_problem_handlers(app, refusals.note)
    complete_document(app)
    app.add_middleware(DirectRoutes, router=payments_routes.router)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_ANSWER_HEADERS,
        )
    if settings.internal_port:
        app.add_middleware(InternalRoutes, port=settings.internal_port)
    app.add_middleware(Deadline)
    app.add_middleware(RequestTrail)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app


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
