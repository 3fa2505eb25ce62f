"""What processes, clocks, clients and messages can do: nothing acknowledged is lost, and nothing is done twice."""

import asyncio
import random
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest

from payments_ledger.process.failpoints import Place
from payments_ledger.rabbitmq.connection import connected
from tests.abuse.attacks import endless_pipeline, endless_trailer, flood_of_trailers, huge_heads
from tests.abuse.cost import measure
from tests.faults.faults import POISON, messages_repeated_and_reordered, publish
from tests.faults.load import Payment, create_request
from tests.faults.oracle import judge
from tests.faults.system import System, eventually

# By strangers; some of it is what the payments beside them need.
GROWTH_MIB_MAX = 10.0

# ---------------------------------------------------------------------------------------------------------------------
# Killed at each place between two steps that must not be lost or done twice

# Each API process and each worker has a place of its own in a round, and all four die in it.
ROUNDS = [
    (
        (Place.BATCH_BEFORE_COMMIT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_BEFORE_PUBLISH, Place.CONSUMER_BEFORE_HANDLE),
    ),
    (
        (Place.ANSWERS_BEFORE_KEPT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_AFTER_CONFIRM, Place.CONSUMER_BEFORE_ACK),
    ),
    (
        (Place.BATCH_BEFORE_COMMIT, Place.ANSWERS_BEFORE_KEPT),
        (Place.BATCH_BEFORE_COMMIT, Place.BATCH_AFTER_COMMIT),
    ),
    (
        (Place.BATCH_AFTER_COMMIT, Place.BATCH_AFTER_COMMIT),
        (Place.RELAY_AFTER_MARK, Place.CONSUMER_AFTER_ACK),
    ),
]


@pytest.mark.parametrize(("of_apis", "of_workers"), ROUNDS)
def test_a_process_that_is_killed_at_a_failpoint_loses_and_repeats_nothing(
    system: System, seed: int, of_apis: tuple[Place, Place], of_workers: tuple[Place, Place]
) -> None:
    places = [*of_apis, *of_workers]
    choice = random.Random(f"{seed} {places}")
    for process, place in zip(system.processes, places, strict=True):
        process.restart(failpoints=f"{place.value}=kill@{choice.randint(1, 4)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for process, place in zip(system.processes, places, strict=True):
        eventually(lambda process=process: not process.is_alive, f"killed at {place.value}")  # type: ignore[misc]
        assert process.wait() == -signal.SIGKILL
        if process in system.apis:
            # The workers need something to do before they reach their places.
            process.start()
    system.heal()
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert verdict.settled > 0


def test_errors_that_nobody_foresaw_hold_up_nothing_for_ever(system: System, seed: int) -> None:
    """In the relay, and around the acknowledgement of a message: each tries again, and the worker lives on."""
    choice = random.Random(f"{seed} errors")
    for worker, place in zip(system.workers, (Place.RELAY_AFTER_CONFIRM, Place.CONSUMER_BEFORE_ACK), strict=True):
        worker.restart(failpoints=f"{place.value}=error@{choice.randint(1, 5)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for worker in system.workers:
        eventually(lambda worker=worker: "FailpointStruck" in worker.log(), "the error was raised")  # type: ignore[misc]
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert all(worker.is_alive for worker in system.workers)


# ---------------------------------------------------------------------------------------------------------------------
# Processes that lost the time


def test_a_clock_ten_minutes_off_dates_nothing_and_harms_nothing(system: System, seed: int) -> None:
    choice = random.Random(f"{seed} clocks")
    system.apis[1].restart(minutes_off=10)
    system.workers[0].restart(minutes_off=10)
    system.workers[1].restart(minutes_off=-10)
    system.heal()
    shown = parsedate_to_datetime(httpx.get(f"{system.base_urls[1]}/healthz").headers["Date"])
    assert shown - datetime.now(UTC) > timedelta(minutes=9)
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    eventually(lambda: len(load.record.payments) > 40, "some payments")
    verdict = judge(system, load.finish())
    for process in (system.apis[1], *system.workers):
        process.kill()
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    with system.owner() as conn:
        dated = conn.execute(
            """
            SELECT count(*) FILTER (WHERE created_at > now() OR updated_at > now() OR updated_at < created_at),
                   count(*) FILTER (WHERE created_at < now() - interval '9 minutes')
            FROM payment_intents WHERE customer_ref = ANY (%s)
            """,
            [[payment.reference for payment in load.record.payments]],
        ).fetchone()
    assert dated == (0, 0)


def test_a_worker_that_stood_still_beyond_every_lease_finds_its_work_done_by_the_other(
    system: System, seed: int
) -> None:
    """It stops while it holds claimed events and unacknowledged messages. Then broker and database give it up."""
    choice = random.Random(f"{seed} leases")
    stopped = system.workers[0]
    held = (Place.RELAY_AFTER_CONFIRM, Place.BATCH_BEFORE_COMMIT, Place.CONSUMER_BEFORE_ACK)
    stopped.restart(failpoints=",".join(f"{place.value}=delay:400" for place in held))
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    eventually(lambda: system.count_in_transaction() > 0, "a transaction is held up")
    time.sleep(choice.uniform(0, 0.5))
    stopped.pause()
    # The broker closes the connection after two heartbeats, the database a transaction that idles for 30 seconds: that
    # end is brought about here.
    time.sleep(7)
    system.postgres.terminate_sessions()
    stopped.resume()
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert stopped.is_alive


# ---------------------------------------------------------------------------------------------------------------------
# Clients at their worst


def test_fifty_clients_on_one_key_make_one_payment_even_if_replies_to_commits_are_lost(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} fifty")
    payment = Payment(f"load-{choice.getrandbits(32):08x}-n1", "12.34")
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
    fickle = [Payment(f"{name}-n{number}", "5.00") for number in range(100_001, 100_041)]
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


@pytest.mark.parametrize("attack", [flood_of_trailers, endless_trailer, huge_heads, endless_pipeline])
def test_a_stranger_who_never_ends_a_request_takes_no_memory_and_others_are_served(
    system: System, seed: int, attack: Callable[[int, float], Counter[str]]
) -> None:
    choice = random.Random(f"{seed} {attack.__name__}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    eventually(lambda: len(load.record.payments) > 40, "some payments, so that what every process keeps is there")
    port = urlsplit(system.base_urls[0]).port
    assert port is not None
    cost = measure(system.apis[0].pid, port, partial(attack, port, 3.0))
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert cost.outcomes.total() > 1, cost
    assert cost.growth_mib < GROWTH_MIB_MAX, cost
    assert (cost.failed, cost.asked > 50) == (0, True), cost


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


# ---------------------------------------------------------------------------------------------------------------------
# Messages as networks and strangers make them


def test_messages_that_come_twice_out_of_order_or_a_day_late_settle_nothing_again(system: System, seed: int) -> None:
    choice = random.Random(f"{seed} messages")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for _ in range(3):
        eventually(lambda: any(payment.confirmed for payment in load.record.payments), "some are confirmed")
        messages_repeated_and_reordered(system, choice)
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"


def test_poison_goes_to_the_dead_letters_and_holds_up_nobody_even_if_a_worker_is_killed_over_it(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} poison")
    url = system.rabbitmq.url
    system.background.run(_purge(url))
    system.workers[0].restart(failpoints=f"{Place.CONSUMER_AFTER_COPY.value}=kill@{choice.randint(1, 3)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    poisoned = 0

    def is_killed() -> bool:
        nonlocal poisoned
        system.background.run(publish(url, [("payment.authorized", body) for body in POISON]))
        poisoned += len(POISON)
        return not system.workers[0].is_alive

    eventually(is_killed, "killed with a copy among the dead letters and the original not acknowledged", pause=0.5)
    assert system.workers[0].wait() == -signal.SIGKILL
    system.heal()
    # The one it was killed over is there twice: at least once is what is promised.
    eventually(lambda: system.background.run(_count(url)) > poisoned, "all poison is among the dead letters")
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    system.background.run(_purge(url))


async def _count(url: str) -> int:
    async with connected(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("payments.dlq", passive=True)
        return queue.declaration_result.message_count or 0


async def _purge(url: str) -> None:
    async with connected(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("payments.dlq", ensure=False)
        await queue.purge()
