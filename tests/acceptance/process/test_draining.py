"""How processes end, and how they are replaced one by one while clients pay: nothing fails, nothing is lost."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from uuid import uuid4

import httpx
import psycopg
import pytest

from payments_ledger.postgres.database import driver_url
from tests.acceptance.client import TENANT, confirm, create, logged_in
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.services import PostgresServer

# Long enough for the test's balancer, which asks ten times a second, on a machine that does other work as well.
GRACE_SECONDS = 3
CLIENTS = 8
BODY = b'{"amount": "1.00", "currency": "BRL", "customer_ref": "C"}'


@pytest.fixture(scope="module")
def own(engine: Engine, postgres: PostgresServer) -> Engine:
    """An installation whose payments are these tests' own, with a grace."""
    changes = {
        "DATABASE_URL": postgres.create_database("draining"),
        "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
        "WORKER_PORT": "0",
    }
    own = Engine(engine.environment | changes, free_port())
    own.install()
    return own


@contextmanager
def started(engine: Engine, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own, all of which is gone at the end, whatever the test came to."""
    process = subprocess.Popen([PROGRAM, *arguments], env=engine.environment, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask_to_leave(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)


def unfinished_request(engine: Engine, headers: httpx.Headers) -> socket.socket:
    """A payment whose body has not come yet, taken by the server."""
    connection = socket.create_connection(("127.0.0.1", engine.port), timeout=30)
    wanted = {name: headers[name] for name in ("Authorization", "X-Tenant-Id")}
    lines = [f"{name}: {value}" for name, value in wanted.items()]
    head = ["POST /v1/payment-intents HTTP/1.1", "Host: x", "Content-Type: application/json"]
    connection.sendall(
        "\r\n".join([*head, *lines, f"Content-Length: {len(BODY)}", "Expect: 100-continue", "", ""]).encode()
    )
    assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    return connection


@pytest.mark.parametrize("processes", [1, 2])
def test_asked_to_end_the_api_says_so_serves_on_finishes_and_ends_well(own: Engine, processes: int) -> None:
    with (
        started(own, "api", "--port", str(own.port), "--workers", str(processes)) as process,
        logged_in(own) as client,
        unfinished_request(own, client.headers) as pending,
    ):
        ask_to_leave(process)
        # Of two processes one may hear of it a moment before the other.
        eventually(lambda: httpx.get(f"{own.base_url}/readyz").json()["status"] == "draining")
        eventually(lambda: create(client).raise_for_status().headers.get("Connection") == "close")
        pending.sendall(BODY)
        assert pending.recv(10_000).startswith(b"HTTP/1.1 201")
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{own.base_url}/readyz")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_asked_twice_the_api_ends_at_once(own: Engine, second: signal.Signals) -> None:
    with (
        started(own, "api", "--port", str(own.port)) as process,
        logged_in(own) as client,
        unfinished_request(own, client.headers),
    ):
        ask_to_leave(process)
        eventually(lambda: httpx.get(f"{own.base_url}/readyz").status_code == 503)
        process.send_signal(second)
        assert process.wait(60) == -second


def test_asked_to_end_the_worker_publishes_what_its_last_messages_led_to(own: Engine) -> None:
    with own.api(), logged_in(own) as client:
        with started(own, "worker") as process:
            for _ in range(30):
                confirm(client, create(client).raise_for_status().json()["id"]).raise_for_status()
            eventually(lambda: count(own, "SELECT count(*) FROM payment_intents WHERE status = 'SETTLED'") > 0)
            ask_to_leave(process)
            assert process.wait(60) == 0
        settled = "SELECT count(*) FROM payment_intents WHERE status = 'SETTLED'"
        told = "SELECT count(*) FROM outbox_events WHERE event_type = 'payment.settled' AND published_at IS NOT NULL"
        assert count(own, settled) == count(own, told)


def count(engine: Engine, statement: str) -> int:
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [TENANT])
        row = conn.execute(statement).fetchone()
        assert row is not None
        return int(row[0])


@dataclass
class Balancer:
    """Sends requests to those who say that they are ready, and elsewhere only what could not even be connected."""

    ports: list[int]
    ready: set[int] = field(default_factory=set)
    refused: int = 0

    async def watch(self) -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while True:
                await asyncio.gather(*(self._look(client, port) for port in self.ports))
                await asyncio.sleep(0.1)

    async def _look(self, client: httpx.AsyncClient, port: int) -> None:
        try:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz", headers={"Connection": "close"})
        except httpx.TransportError:
            self.ready.discard(port)
        else:
            (self.ready.add if answer.is_success else self.ready.discard)(port)

    async def post(self, client: httpx.AsyncClient, path: str, body: object = None) -> httpx.Response:
        """With one key for all attempts, as a client should."""
        key = str(uuid4())
        async with asyncio.timeout(60):
            while True:
                for port in sorted(self.ready, key=lambda _: uuid4().int):
                    try:
                        url = f"http://127.0.0.1:{port}{path}"
                        return await client.post(url, json=body, headers={"Idempotency-Key": key})
                    except httpx.ConnectError:
                        self.refused += 1
                await asyncio.sleep(0.05)


async def pay_until(enough: asyncio.Event, balancer: Balancer, headers: dict[str, str]) -> list[str]:
    """The ids of the payments that were confirmed; whatever is not a success ends the test."""
    paid = []
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        while not enough.is_set():
            body = {"amount": "1.00", "currency": "BRL", "customer_ref": "rolling"}
            created = await balancer.post(client, "/v1/payment-intents", body)
            assert created.status_code == 201, created.text
            confirmed = await balancer.post(client, f"/v1/payment-intents/{created.json()['id']}/confirm")
            assert confirmed.status_code == 200, confirmed.text
            paid.append(created.json()["id"])
    return paid


def test_two_apis_and_two_workers_are_replaced_one_by_one_under_load_and_nothing_fails(own: Engine) -> None:
    apis = [own, replace(own, port=free_port())]
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(started(own, *name))
            for name in [*(("api", "--port", str(api.port)) for api in apis), ("worker", "--host", "127.0.0.1")]
        }
        second_worker = ("worker", "--host", "localhost")
        running[second_worker] = stack.enter_context(started(own, *second_worker))
        for api in apis:
            api.wait_until_ready()
        with logged_in(own) as client:
            headers = dict(client.headers)
        balancer = Balancer([api.port for api in apis])

        async def replace_all() -> list[str]:
            enough = asyncio.Event()
            watching = asyncio.create_task(balancer.watch())
            try:
                async with asyncio.TaskGroup() as tasks:
                    payers = [tasks.create_task(pay_until(enough, balancer, headers)) for _ in range(CLIENTS)]
                    for name, process in list(running.items()):
                        ask_to_leave(process)
                        assert await asyncio.to_thread(process.wait, 60) == 0
                        stack.enter_context(started(own, *name))
                        async with asyncio.timeout(60):
                            while len(balancer.ready) < len(apis):
                                await asyncio.sleep(0.05)
                    enough.set()
            finally:
                watching.cancel()
            return [payment_id for payer in payers for payment_id in payer.result()]

        paid = asyncio.run(replace_all())
        assert len(paid) > CLIENTS
        settled = "SELECT count(*) FROM payment_intents WHERE customer_ref = 'rolling' AND status = 'SETTLED'"
        eventually(lambda: count(own, settled) == len(paid), seconds=60)
    report = json.loads(own.run("verify", "--json"))
    assert report["ok"], report
