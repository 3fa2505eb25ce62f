"""Limits that only the real server and its sockets show: heads, slow clients, ports, and two processes on one Redis."""

import asyncio
import socket
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace

import httpx
import pytest

from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.acceptance.test_engine import TENANT, logged_in
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


def test_a_client_that_never_ends_its_head_is_hung_up_on(engine: Engine) -> None:
    with engine.api():
        engine.wait_until_ready()
        for beginning in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
            began = time.monotonic()
            assert answer_to(engine, beginning) == b""
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
        eventually(lambda: httpx.get(f"http://127.0.0.1:{inside}/readyz").is_success)
        body = {"email": "ops@demo", "password": "ops123", "tenantId": TENANT}
        assert httpx.post(f"{divided.base_url}/v1/auth/token", json=body).is_success
        assert httpx.post(f"http://127.0.0.1:{inside}/v1/auth/token", json=body).status_code == 404


@pytest.mark.parametrize("command", ["api", "worker"])
def test_production_does_not_start_with_what_is_unfit_and_says_so(engine: Engine, command: str) -> None:
    environment = engine.environment | {"APP_ENV": "production", "JWT_SECRET": "too-short", "CHAOS_ENABLED": "true"}
    done = subprocess.run([PROGRAM, command], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert "JWT_SECRET is shorter than 32 bytes" in done.stderr
    assert "CHAOS_ENABLED" in done.stderr
    assert "too-short" not in done.stderr + done.stdout
