"""The pages of the worker, which serves nobody else: its health and its metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from payments_ledger.postgres.database import Database
from payments_ledger.process.settings import Settings
from payments_ledger.web import health, metrics_page


def worker_pages(settings: Settings, database: Database) -> FastAPI:
    """/healthz, /readyz and /metrics."""

    @asynccontextmanager
    async def hold_checks(app: FastAPI) -> AsyncIterator[None]:
        async with health.checks_of(settings, database) as app.state.checks:
            yield

    pages = FastAPI(lifespan=hold_checks, openapi_url=None, redirect_slashes=False)
    pages.include_router(health.router)
    pages.include_router(metrics_page.router)
    return pages
