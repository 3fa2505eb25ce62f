"""A worker in the tests' own process, on a real broker, and what it has done."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg

from payments_ledger.postgres.database import driver_url
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.worker import Worker
from tests.acceptance.conftest import Engine
from tests.acceptance.operations import list_dead_letters

TENANT = "00000000-0000-0000-0000-000000000002"


async def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while not (answer := condition()):
            await asyncio.sleep(0.05)
        return answer


def ask(engine: Engine, statement: str, *parameters: Any, tenant: str = TENANT) -> list[tuple[Any, ...]]:
    """What the database says of the tenant, as the schema's owner."""
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [tenant])
        return conn.execute(statement, parameters).fetchall()


@asynccontextmanager
async def worker_in_this_process(settings: Settings) -> AsyncIterator[None]:
    working = asyncio.create_task(Worker(settings).run())
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def settings_of(engine: Engine, **changes: Any) -> Settings:
    names = ("DATABASE_URL", "RABBITMQ_URL", "JWT_SECRET", "ORDERS_QUEUE")
    own: dict[str, Any] = {name.lower(): engine.environment[name] for name in names if name in engine.environment}
    return Settings(_env_file=None, redis_url=MEMORY_URL, orders_integration_enabled=True, **own, **changes)


async def dead_letters_are(settings: Settings, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await list_dead_letters(settings)) != count:
            await asyncio.sleep(0.05)
