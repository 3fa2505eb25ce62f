"""One payment, followed through the code: which files it enters from the request to its settlement."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import CodeType

import httpx
import pytest

import payments_ledger
from payments_ledger.api import create_app
from payments_ledger.process.settings import Settings
from payments_ledger.web.server import server_beside
from payments_ledger.worker import Worker
from tests.integration.conftest import Api

pytestmark = pytest.mark.anyio

PACKAGE = Path(payments_ledger.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"
# As many as it enters today: who adds one takes another out, or says in ARCHITECTURE.md why not.
FILES_MAX = 51
# Rooms that only look on, or carry what others decide.
ON_LOOKERS = (
    "telemetry/",
    "process/",
    "chaos/",
    "feed/",
    "postgres/array_literals.py",
    "messaging/traced_publisher.py",
)
# Longer than every loop that runs beside payments takes to come round once.
IDLE_SECONDS = 1.5
FOLLOWER = 4


@contextmanager
def entered() -> Iterator[dict[CodeType, None]]:
    """The functions of the package that are called meanwhile, in the order of their first calls."""
    functions: dict[CodeType, None] = {}

    def note(code: CodeType, _offset: int) -> object:
        if Path(code.co_filename).is_relative_to(PACKAGE):
            functions[code] = None
        return sys.monitoring.DISABLE

    sys.monitoring.use_tool_id(FOLLOWER, "one payment")
    sys.monitoring.register_callback(FOLLOWER, sys.monitoring.events.PY_START, note)
    sys.monitoring.restart_events()
    sys.monitoring.set_events(FOLLOWER, sys.monitoring.events.PY_START)
    try:
        yield functions
    finally:
        sys.monitoring.set_events(FOLLOWER, sys.monitoring.events.NO_EVENTS)
        sys.monitoring.free_tool_id(FOLLOWER)


@asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[str]:
    """API and worker in this process; the API's address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = server_beside(create_app(settings))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[listener]))
        working = tasks.create_task(Worker(settings).run())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving
        working.cancel()


async def test_the_six_steps_name_every_file_that_decides_something_about_a_payment(
    settings: Settings, api: Api, tenant: str, record_property: Callable[[str, object], None]
) -> None:
    headers = api.headers(tenant)
    order = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-1"}
    quiet = settings.model_copy(update={"verify_seconds": 0.0})
    async with engine(quiet) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        with entered() as beside:
            await asyncio.sleep(IDLE_SECONDS)
        with entered() as functions:
            created = await client.post("/v1/payment-intents", json=order, headers={**headers, "Idempotency-Key": "1"})
            path = f"/v1/payment-intents/{created.json()['id']}"
            confirmed = await client.post(f"{path}/confirm", headers={**headers, "Idempotency-Key": "2"})
            assert confirmed.json()["status"] == "AUTHORIZED"
            # Asked in another process's name, so that reading is no part of the trip.
            async with asyncio.timeout(10):
                while not any(code.co_name == "mark_published" for code in functions) or not settled(functions):
                    await asyncio.sleep(0.01)
    trip = [code for code in functions if code not in beside]
    files = dict.fromkeys(Path(code.co_filename).relative_to(PACKAGE).as_posix() for code in trip)
    named = set(re.findall(r"`([a-z_]+/[a-z_]+\.py|[a-z_]+\.py)`", ARCHITECTURE.read_text()))
    record_property("measured", f"one payment enters {len(files)} files")
    assert [file for file in files if file not in named and not file.startswith(ON_LOOKERS)] == []
    assert len(files) <= FILES_MAX


def settled(functions: dict[CodeType, None]) -> bool:
    return any(code.co_name == "insert_postings" for code in functions)
