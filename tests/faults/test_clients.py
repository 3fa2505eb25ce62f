"""Clients at their worst: fifty on one key, many for few connections, slow ones, and ones that hang up."""

import asyncio
import random
import socket
import struct
from urllib.parse import urlsplit

import httpx

from tests.faults.load import Payment, create_request
from tests.faults.oracle import judge
from tests.faults.system import System, eventually


def test_fifty_clients_on_one_key_make_one_payment_even_if_replies_to_commits_are_lost(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} fifty")
    payment = Payment(f"load-{choice.getrandbits(32):08x}-1", "12.34")
    path, key, body = create_request(payment)
    headers = system.headers | {"Idempotency-Key": key, "Content-Type": "application/json"}

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(headers=headers, timeout=10) as http:

            async def until_answered(number: int) -> httpx.Response:
                while True:
                    answer = await http.post(system.base_urls[number % 2] + path, content=body)
                    if answer.status_code not in (409, 503):
                        return answer
                    await asyncio.sleep(0.1)

            return await asyncio.gather(*map(until_answered, range(50)))

    system.to_postgres.lose_reply_to(b"COMMIT")
    answers = system.background.run(all_at_once())
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    with system.owner() as conn:
        row = conn.execute(
            "SELECT count(*) FROM payment_intents WHERE customer_ref = %s", [payment.reference]
        ).fetchone()
    assert row == (1,)


def test_more_clients_than_connections_are_all_served_once_whoever_held_the_tables_lets_go(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} pool")
    for api in system.apis:
        api.restart(DATABASE_POOL_SIZE="2")
    system.heal()
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32), clients=40, pause_seconds=0)
    with system.owner() as conn, conn.transaction():
        conn.execute("LOCK TABLE payment_intents IN EXCLUSIVE MODE")
        load.start()
        eventually(lambda: load.record.answers["503"] >= 10, "requests are refused")
        assert not any(payment.created for payment in load.record.payments)
    verdict = judge(system, load.finish())
    for api in system.apis:
        api.kill()
    assert verdict.ok, f"{verdict}\n{system.logs()}"


def test_clients_that_are_slow_or_hang_up_harm_nobody_and_find_one_payment_when_they_come_back(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} hanging up")
    name = f"load-{choice.getrandbits(32):08x}"
    load = system.load(name, seed=choice.getrandbits(32))
    load.start()
    connections: list[socket.socket] = []
    fickle = [Payment(f"{name}-{number}", "5.00") for number in range(100_001, 100_041)]
    for payment in fickle:
        whole = _as_bytes(system, payment)
        connection = socket.create_connection(("127.0.0.1", urlsplit(choice.choice(system.base_urls)).port or 0))
        # Reset, not closed, when it ends.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if choice.random() < 0.5:
            connection.sendall(whole)
            connection.close()
        else:
            # Slow: it sends a part now, and nothing for as long as the others work.
            connection.sendall(whole[: choice.randrange(1, len(whole))])
            connections.append(connection)
    for connection in connections:
        connection.close()
    with httpx.Client(headers=system.headers, timeout=10) as http:
        for payment in fickle:
            path, key, body = create_request(payment)
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            answer = http.post(choice.choice(system.base_urls) + path, content=body, headers=headers)
            assert answer.status_code == 201, answer.text
            payment.id, payment.created = answer.json()["id"], answer.content
    record = load.finish()
    record.payments += fickle
    verdict = judge(system, record)
    assert verdict.ok, f"{verdict}\n{system.logs()}"


def _as_bytes(system: System, payment: Payment) -> bytes:
    path, key, body = create_request(payment)
    headers = system.headers | {
        "Host": "localhost",
        "Idempotency-Key": key,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body
