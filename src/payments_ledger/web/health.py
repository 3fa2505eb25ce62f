"""Liveness and readiness: readyz names each dependency; only PostgreSQL is needed to serve."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from payments_ledger.postgres.database import Database
from payments_ledger.process.draining import is_draining
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.rabbitmq import connection as rabbitmq
from payments_ledger.redis import pipeline as redis
from payments_ledger.web.exact_requests import StrictRoute
from payments_ledger.web.problems import documented

# Without it no payment can be taken; without the others payments go on.
NEEDED = "postgresql"
CHECK_SECONDS_MAX = 2.5
# Anybody may ask, and RabbitMQ is asked with a new connection: everybody who asks within this time shares one answer.
SHARED_SECONDS = 1.0

type Check = Callable[[], Awaitable[bool]]
type Checks = Mapping[str, Check]

router = APIRouter(tags=["operation"], route_class=StrictRoute)


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


UNAVAILABLE_EXAMPLE = {
    "status": "unavailable",
    "dependencies": {"postgresql": "away", "redis": "ok", "rabbitmq": "ok"},
}


class Readiness(BaseModel):
    """`degraded`: payments are taken, but something that follows them up is away; `leaving`: the process is ending."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "degraded", "dependencies": {"postgresql": "ok", "redis": "ok", "rabbitmq": "away"}}
            ]
        }
    )

    status: Literal["ok", "degraded", "unavailable", "leaving"]
    dependencies: dict[str, Literal["ok", "away"]]


@router.get(
    "/healthz",
    summary="Tell whether the process is alive",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def get_health() -> Health:
    """The process is alive."""
    return Health()


@router.get(
    "/readyz",
    summary="Tell whether payments can be taken",
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY)
    | {
        503: {
            "model": Readiness,
            "description": "PostgreSQL is away, or the process is ending",
            "content": {"application/json": {"example": UNAVAILABLE_EXAMPLE}},
        }
    },
)
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Whether payments can be taken now, and what of the system is away."""
    checks: Checks = request.app.state.checks
    results = await asyncio.gather(*(_passes(check) for check in checks.values()))
    up = dict(zip(checks, results, strict=True))
    if is_draining() or not up[NEEDED]:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "1"
    return Readiness(
        status=_status_of(up),
        dependencies={name: "ok" if is_up else "away" for name, is_up in up.items()},
    )


def _status_of(up: Mapping[str, bool]) -> Literal["ok", "degraded", "unavailable", "leaving"]:
    if is_draining():
        return "leaving"
    if not up[NEEDED]:
        return "unavailable"
    return "ok" if all(up.values()) else "degraded"


@asynccontextmanager
async def checks_of(settings: Settings, database: Database) -> AsyncIterator[Checks]:
    """What readyz asks of each dependency; what runs in memory is always there."""

    async def always() -> bool:
        return True

    checks: dict[str, Check] = {NEEDED: database.is_up, "redis": always, "rabbitmq": always}
    if not settings.rabbitmq_url.startswith(MEMORY_URL):
        checks["rabbitmq"] = shared(lambda: rabbitmq.is_up(settings.rabbitmq_url))
    if settings.redis_url.startswith(MEMORY_URL):
        yield checks
        return
    client = redis.connect(settings.redis_url)
    checks["redis"] = lambda: redis.is_up(client)
    yield checks
    await client.aclose()


def shared(check: Check) -> Check:
    """The check, asked at most once in SHARED_SECONDS, however many want to know."""
    asked_at = -SHARED_SECONDS
    asking: asyncio.Task[bool] | None = None

    async def ask() -> bool:
        return await check()

    async def answer() -> bool:
        nonlocal asked_at, asking
        now = time.monotonic()
        if asking is None or asking.cancelled() or now - asked_at >= SHARED_SECONDS:
            asked_at, asking = now, asyncio.create_task(ask())
        return await asyncio.shield(asking)

    return answer


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            return await check()
    except TimeoutError:
        return False
