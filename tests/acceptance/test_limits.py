"""Limits that only the real server and its sockets show: heads, slow clients, ports, and two processes on one Redis."""

import asyncio
import json
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.client import TENANT, logged_in
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.services import RedisServer


@pytest.fixture
def limited(engine: Engine, redis_server: RedisServer) -> Engine:
    """The README's defaults, on a Redis database of its own."""
    changes = {
        "RATE_LIMIT_WRITE_PER_MIN": "60",
        "RATE_LIMIT_READ_PER_MIN": "240",
        "REDIS_URL": redis_server.url.removesuffix("/0") + "/7",
    }
    return Engine(engine.environment | changes, free_port())


def test_two_processes_on_one_redis_admit_sixty_writes_in_the_first_minute(limited: Engine) -> None:
    other = replace(limited, port=free_port())
    with limited.api(), other.api(), logged_in(limited) as client:
        other.wait_until_ready()

        async def at_once() -> list[int]:
            async with httpx.AsyncClient(headers=client.headers, timeout=30) as both:
                urls = [f"{limited.base_url}/v1/payment-intents", f"{other.base_url}/v1/payment-intents"]
                body = {"amount": "1.00", "currency": "BRL", "customer_ref": "C"}
                answers = await asyncio.gather(*(both.post(urls[n % 2], json=body) for n in range(160)))
            return [answer.status_code for answer in answers]

        assert Counter(asyncio.run(at_once())) == {201: 60, 429: 100}


def answer_to(engine: Engine, request: bytes, seconds: float = 15) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=seconds) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * 300_000,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-Many: x\r\n" * 5000 + b"\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["one long header", "an endless header", "many headers", "a long path"],
)
def test_a_head_that_is_too_large_is_refused_and_the_next_request_works(engine: Engine, head: bytes) -> None:
    with engine.api():
        engine.wait_until_ready()
        answer = answer_to(engine, head)
        # A reset may overtake the answer while we still send.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
        assert httpx.get(f"{engine.base_url}/healthz").is_success


GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_an_upgrade_is_refused_and_its_body_is_no_request(engine: Engine) -> None:
    head = (
        b"POST /v1/auth/token HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n"
        b"Content-Length: %d\r\n\r\n" % len(GET_HEALTH)
    )
    with engine.api():
        engine.wait_until_ready()
        answer = answer_to(engine, head + GET_HEALTH)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["status"], problem["code"]) == (400, "bad_request")


def test_a_trailer_is_no_header(engine: Engine, redis_server: RedisServer) -> None:
    """Neither as a token, nor as another address, which would have a quota of its own."""
    changes = {
        "LOGIN_RATE_LIMIT_PER_MIN": "3",
        "TRUSTED_PROXIES": "127.0.0.1",
        "REDIS_URL": redis_server.url.removesuffix("/0") + "/6",
    }
    limited = Engine(engine.environment | changes, free_port())
    credentials = json.dumps({"email": "ops@demo", "password": "ops123", "tenantId": TENANT}).encode()

    def status(line: bytes, body: bytes, trailer: bytes) -> bytes:
        head = line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
        return answer_to(limited, head + chunks + trailer + b"\r\n\r\n")[9:12]

    with limited.api(), logged_in(limited) as client:
        authorization = client.headers["Authorization"].encode()
        assert status(b"GET /v1/me", b" ", b"Authorization: " + authorization) == b"401"
        logins = [status(b"POST /v1/auth/token", credentials, b"X-Forwarded-For: 10.0.0.%d" % n) for n in range(4)]
        assert logins == [b"200", b"200", b"429", b"429"]


def test_a_client_that_never_ends_its_head_is_hung_up_on(engine: Engine) -> None:
    with engine.api():
        engine.wait_until_ready()
        began = time.monotonic()
        with ThreadPoolExecutor() as threads:
            beginnings = (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            for answer in threads.map(partial(answer_to, engine), beginnings):
                assert answer == b""
                assert 8 < time.monotonic() - began < 13


def test_metrics_and_documentation_are_served_at_the_internal_port_alone(engine: Engine) -> None:
    inside = free_port()
    divided = Engine(engine.environment | {"INTERNAL_PORT": str(inside)}, free_port())
    with ExitStack() as stack:
        stack.enter_context(divided.process("api", "--port", str(divided.port), "--workers", "2"))
        divided.wait_until_ready()
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert httpx.get(f"{divided.base_url}{path}").status_code == 404
            assert httpx.get(f"http://127.0.0.1:{inside}{path}").is_success
            # The pattern of a route ends in front of a line feed, too.
            assert httpx.get(f"{divided.base_url}{path}%0a").status_code == 400
            assert httpx.get(f"http://127.0.0.1:{inside}{path}%0a").status_code == 400
        eventually(lambda: httpx.get(f"http://127.0.0.1:{inside}/readyz").is_success)
        body = {"email": "ops@demo", "password": "ops123", "tenantId": TENANT}
        assert httpx.post(f"{divided.base_url}/v1/auth/token", json=body).is_success
        assert httpx.post(f"http://127.0.0.1:{inside}/v1/auth/token", json=body).status_code == 404


def test_ten_bulk_requests_of_the_worst_references_keep_nobody_waiting(engine: Engine) -> None:
    """Each reference has so many groups of digits that every part of it might be a card number."""
    payment = {"amount": "1.00", "currency": "BRL", "customer_ref": "1 " * 63 + "1"}
    body = {"payment_intents": [payment] * 1000}

    async def slowest_answer(headers: httpx.Headers) -> float:
        slowest = 0.0
        async with httpx.AsyncClient(base_url=engine.base_url, headers=headers, timeout=60) as client:

            async def post(key: str) -> None:
                answer = await client.post("/v1/payment-intents/batch", json=body, headers={"Idempotency-Key": key})
                assert answer.is_success

            posting = [asyncio.create_task(post(str(uuid4()))) for _ in range(10)]
            while not all(task.done() for task in posting):
                began = time.monotonic()
                assert (await client.get("/healthz")).is_success
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.01)
            await asyncio.gather(*posting)
        return slowest

    with engine.api(), logged_in(engine) as client:
        # It was 19 s; most of what is left is this test's own work and the machine's other work.
        assert asyncio.run(slowest_answer(client.headers)) < 1


@pytest.mark.parametrize("command", ["api", "worker"])
def test_production_does_not_start_with_what_is_unfit_and_says_so(engine: Engine, command: str) -> None:
    environment = engine.environment | {"APP_ENV": "production", "JWT_SECRET": "too-short", "CHAOS_ENABLED": "true"}
    done = subprocess.run([PROGRAM, command], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert "JWT_SECRET is shorter than 32 bytes" in done.stderr
    assert "CHAOS_ENABLED" in done.stderr
    assert "too-short" not in done.stderr + done.stdout
