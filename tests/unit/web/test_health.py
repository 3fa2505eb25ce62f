"""Probes learn which dependency is unreachable; what readyz asks of others is asked once, however many want to know."""

import asyncio
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from payments_ledger.postgres.database import Database
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.web import health
from payments_ledger.web.health import Checks, router_of, shared
from payments_ledger.web.problems import install_problem_handlers

pytestmark = pytest.mark.anyio


async def test_everybody_who_asks_at_once_shares_one_question() -> None:
    asked = 0

    async def check() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    ask = shared(check)
    assert await asyncio.gather(*(ask() for _ in range(50))) == [True] * 50
    assert await ask()
    assert asked == 1


async def test_an_answer_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "SHARED_SECONDS", 0)
    answers = iter([True, False])

    async def check() -> bool:
        return next(answers)

    ask = shared(check)
    assert [await ask(), await ask()] == [True, False]


async def test_one_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    goes_on = asyncio.Event()

    async def check() -> bool:
        await goes_on.wait()
        return True

    ask = shared(check)

    async def one() -> bool:
        return await ask()

    impatient = asyncio.create_task(one())
    patient = asyncio.create_task(one())
    await asyncio.sleep(0)
    impatient.cancel()
    goes_on.set()
    assert await patient


class Postgres:
    """A database that is reachable or not."""

    def __init__(self, is_up: bool) -> None:
        self._is_up = is_up

    async def is_up(self) -> bool:
        return self._is_up


async def ask(path: str, *, is_up: bool) -> httpx.Response:
    """The response of a process without any middleware, as the worker's pages are served."""
    settings = Settings(_env_file=None, redis_url=MEMORY_URL, rabbitmq_url=MEMORY_URL, jwt_secret=SecretStr("s" * 32))
    app = FastAPI()
    app.include_router(router_of(Checks(settings, cast("Database", Postgres(is_up)))))
    install_problem_handlers(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("is_up", "is_draining", "status_code", "expected"),
    [
        (True, False, 200, {"status": "ok", "postgresql": "ok"}),
        (False, False, 503, {"status": "unavailable", "postgresql": "unreachable"}),
        (True, True, 503, {"status": "draining", "postgresql": "ok"}),
        (False, True, 503, {"status": "draining", "postgresql": "unreachable"}),
    ],
)
async def test_readyz_tells_why_nothing_should_be_sent(
    is_up: bool, is_draining: bool, status_code: int, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "is_draining", lambda: is_draining)
    response = await ask("/readyz", is_up=is_up)
    body = response.json()
    assert (response.status_code, "Retry-After" in response.headers) == (status_code, status_code == 503)
    assert {"status": body["status"], "postgresql": body["dependencies"]["postgresql"]} == expected


async def test_a_probe_with_an_unknown_parameter_is_refused_by_its_name() -> None:
    response = await ask("/readyz?verbos=1", is_up=True)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"parameter": "verbos", "detail": "is not known here"}]
