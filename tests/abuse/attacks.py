"""What a stranger with one connection, and a user at the default limits, can ask of a process at worst.

Each attack runs in a process of its own, goes on for so many seconds or until its limits stop it, and returns how often
it got which status ("closed": the connection ended without one).
"""

import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 64 * 1024
SLOW_CONNECTIONS = 200
# The default limits of a minute, and some more.
LOGINS = 40
WRITES = 70
READS = 250

CHUNKED = b"POST /v1/auth/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
GET = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"

type Headers = Mapping[str, str]


def nothing(_: int, seconds: float) -> Counter[str]:
    """What others' requests cost by themselves."""
    time.sleep(seconds)
    return Counter()


def flood_of_trailers(port: int, seconds: float) -> Counter[str]:
    return _flood(port, seconds, CHUNKED, b"A: b\r\n" * (PIECE_BYTES // 6))


def endless_trailer(port: int, seconds: float) -> Counter[str]:
    return _flood(port, seconds, CHUNKED + b"A: ", b"x" * PIECE_BYTES)


def huge_heads(port: int, seconds: float) -> Counter[str]:
    return _flood(port, seconds, GET[:-2], b"A:\r\n" * (PIECE_BYTES // 4))


def endless_pipeline(port: int, seconds: float) -> Counter[str]:
    """Requests one behind the other, whose responses nobody reads."""
    return _flood(port, seconds, b"", GET * (PIECE_BYTES // len(GET)))


def slow_heads(port: int, seconds: float) -> Counter[str]:
    """Many connections, each of which sends a byte of its head now and then."""
    connections = [socket.create_connection((HOST, port)) for _ in range(SLOW_CONNECTIONS)]
    ends = time.monotonic() + seconds
    for connection in connections:
        connection.sendall(GET[:-2] + b"A: ")
    while time.monotonic() < ends:
        time.sleep(0.1)
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b"x")
    for connection in connections:
        connection.close()
    return Counter(connections=SLOW_CONNECTIONS)


def large_bodies(port: int, seconds: float) -> Counter[str]:
    """Logins as large as a body may be."""
    body = json.dumps({"email": "x", "password": "y" * 64_000}).encode()
    ends = time.monotonic() + seconds
    return _ask_all(port, "POST", "/v1/auth/token", _until(ends, body), {})


def login_guesses(port: int, _: float) -> Counter[str]:
    bodies = (json.dumps({"email": f"{number}@demo", "password": "guess"}).encode() for number in range(LOGINS))
    return _ask_all(port, "POST", "/v1/auth/token", bodies, {}, at_once=8)


def deep_json(port: int, _: float, headers: Headers) -> Counter[str]:
    body = b"[" * 32_000 + b"]" * 32_000
    return _ask_all(port, "POST", "/v1/payment-intents", repeat(body, WRITES), headers, at_once=8)


def long_numbers(port: int, _: float, headers: Headers) -> Counter[str]:
    """An integer as long as a body, whose conversion takes quadratic time if one lets it."""
    body = b'{"currency": "BRL", "customer_ref": "C", "amount": ' + b"9" * 64_000 + b"}"
    return _ask_all(port, "POST", "/v1/payment-intents", repeat(body, WRITES), headers, at_once=8)


def worst_batches(port: int, _: float, headers: Headers) -> Counter[str]:
    """Ten batches of 1,000 payments whose references could hold a card number at every place."""
    item = {"amount": "1.00", "currency": "BRL", "customer_ref": " ".join("1" * 64)}
    body = json.dumps({"payment_intents": [item] * 1000}).encode()
    return _ask_all(port, "POST", "/v1/payment-intents/batch", repeat(body, 10), headers, at_once=10)


def longest_lists(port: int, _: float, headers: Headers) -> Counter[str]:
    bodies = repeat(b"", READS)
    return _ask_all(port, "GET", "/v1/ledger/entries?limit=200", bodies, headers, at_once=8)


def _until(ends: float, body: bytes) -> Iterable[bytes]:
    while time.monotonic() < ends:
        yield body


def _flood(port: int, seconds: float, beginning: bytes, piece: bytes) -> Counter[str]:
    """Sends the piece again and again, on one connection after the other."""
    ends = time.monotonic() + seconds
    outcomes: Counter[str] = Counter()
    while time.monotonic() < ends:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            with suppress(OSError):
                connection.sendall(beginning)
                while time.monotonic() < ends:
                    connection.sendall(piece)
            answer = b""
            with suppress(OSError):
                answer = connection.recv(65536)
            outcomes[answer[9:12].decode() or "closed"] += 1
    return outcomes


def _ask_all(
    port: int, method: str, path: str, bodies: Iterable[bytes], headers: Headers, *, at_once: int = 1
) -> Counter[str]:
    def ask(numbered: tuple[int, bytes]) -> str:
        number, body = numbered
        connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
        try:
            key = {"Idempotency-Key": f"{time.monotonic_ns()}-{number}"}
            connection.request(method, path, body, {"Content-Type": "application/json", **key, **headers})
            return str(connection.getresponse().status)
        except OSError:
            return "closed"
        finally:
            connection.close()

    if at_once == 1:
        return Counter(map(ask, enumerate(bodies)))
    with ThreadPoolExecutor(at_once) as threads:
        return Counter(threads.map(ask, enumerate(bodies)))
