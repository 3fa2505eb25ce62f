"""Liveness and readiness: readyz names each dependency; only PostgreSQL is needed to serve."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from payments_ledger.postgres.database import Database
from payments_ledger.process.draining import is_draining
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.rabbitmq import connection as rabbitmq
from payments_ledger.redis import pipeline as redis
from payments_ledger.web.problems import documented
from payments_ledger.web.routes import Route

# Without it no payment can be taken; without the others payments go on.
NEEDED = "postgresql"
CHECK_SECONDS_MAX = 2.5
# Anybody may ask, and RabbitMQ is asked with a new connection: everybody who asks within this time shares one result.
SHARED_SECONDS = 1.0

type Check = Callable[[], Awaitable[bool]]
Status = Literal["ok", "degraded", "unavailable", "draining"]


class Health(BaseModel):
    """The process runs; its dependencies are not looked at."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


UNAVAILABLE_EXAMPLE = {
    "status": "unavailable",
    "dependencies": {"postgresql": "unreachable", "redis": "ok", "rabbitmq": "ok"},
}


class Readiness(BaseModel):
    """`degraded`: payments are taken, but a dependency of what follows is unreachable; `draining`: the process ends."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"status": "degraded", "dependencies": {"postgresql": "ok", "redis": "ok", "rabbitmq": "unreachable"}}
            ]
        }
    )

    status: Status
    dependencies: dict[str, Literal["ok", "unreachable"]]


class Checks:
    """What readyz asks of each dependency; what runs in memory is always reachable."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._redis: Redis | None = None
        self._checks: dict[str, Check] = {NEEDED: database.is_up, "redis": _always, "rabbitmq": _always}
        if not settings.rabbitmq_url.startswith(MEMORY_URL):
            self._checks["rabbitmq"] = shared(lambda: rabbitmq.is_up(settings.rabbitmq_url))
        if not settings.redis_url.startswith(MEMORY_URL):
            self._redis = client = redis.connect(settings.redis_url)
            self._checks["redis"] = lambda: redis.is_up(client)

    async def run(self) -> dict[str, bool]:
        """Whether each dependency is reachable, by its name."""
        results = await asyncio.gather(*(_passes(check) for check in self._checks.values()))
        return dict(zip(self._checks, results, strict=True))

    async def close(self) -> None:
        if self._redis:
            await self._redis.aclose()


def router_of(checks: Checks) -> APIRouter:
    """The routes of a process with these dependencies."""
    router = APIRouter(tags=["operation"], route_class=Route)

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
        response_model=Readiness,
        responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY)
        | {
            503: {
                "model": Readiness,
                "description": "PostgreSQL is unreachable, or the process is ending",
                "content": {"application/json": {"example": UNAVAILABLE_EXAMPLE}},
            }
        },
    )
    async def get_readiness() -> Response:
        """Whether payments can be taken now, and which dependencies are unreachable."""
        reachable = await checks.run()
        readiness = Readiness(
            status=_status_of(reachable),
            dependencies={name: "ok" if is_up else "unreachable" for name, is_up in reachable.items()},
        )
        body = readiness.model_dump_json()
        if is_draining() or not reachable[NEEDED]:
            return Response(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"}, "application/json")
        return Response(body, media_type="application/json")

    return router


def _status_of(reachable: Mapping[str, bool]) -> Status:
    if is_draining():
        return "draining"
    if not reachable[NEEDED]:
        return "unavailable"
    return "ok" if all(reachable.values()) else "degraded"


def shared(check: Check) -> Check:
    """The check, asked at most once in SHARED_SECONDS, however many want to know."""
    asked_at = -SHARED_SECONDS
    asking: asyncio.Task[bool] | None = None

    async def ask() -> bool:
        return await check()

    async def result() -> bool:
        nonlocal asked_at, asking
        now = time.monotonic()
        if asking is None or asking.cancelled() or now - asked_at >= SHARED_SECONDS:
            asked_at, asking = now, asyncio.create_task(ask())
        return await asyncio.shield(asking)

    return result


async def _always() -> bool:
    return True


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            return await check()
    except TimeoutError:
        return False
