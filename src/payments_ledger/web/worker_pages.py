"""The pages of the worker, which serves nobody else: its health and its metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from payments_ledger.postgres.database import Database
from payments_ledger.process.settings import Settings
from payments_ledger.web import health, metrics_page
from payments_ledger.web.problems import install_problem_handlers


def worker_pages(settings: Settings, database: Database) -> FastAPI:
    """What the worker serves at WORKER_PORT: its health, its readiness, its metrics."""
    checks = health.Checks(settings, database)

    @asynccontextmanager
    async def close_checks(_: FastAPI) -> AsyncIterator[None]:
        yield
        await checks.close()

    pages = FastAPI(lifespan=close_checks, openapi_url=None, redirect_slashes=False)
    pages.include_router(health.router_of(checks))
    pages.include_router(metrics_page.router)
    install_problem_handlers(pages)
    return pages
