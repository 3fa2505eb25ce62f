"""The engine as its users run it: processes, real services, the README's requests."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.client import confirm, create, logged_in, settled
from tests.acceptance.conftest import Engine, command, eventually
from tests.profiles import scaled
from tests.services import PostgresServer, RabbitmqServer, RedisServer

PAYMENTS = scaled(250, nightly=1000)
CONNECTIONS = 64


def at_once(*requests: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """The responses to requests that wait side by side."""
    with ThreadPoolExecutor(len(requests)) as threads:
        return [answer.result() for answer in [threads.submit(request) for request in requests]]


def test_the_requests_of_the_readme_lead_to_a_settled_payment(engine: Engine) -> None:
    with engine.api(), engine.worker(), logged_in(engine) as client:
        intent = create(client).raise_for_status().json()
        assert confirm(client, intent["id"]).json()["status"] == "AUTHORIZED"
        eventually(lambda: settled(client, intent["id"]))
        entries = client.get("/v1/ledger/entries?from=2026-01-01T00:00:00").json()
        assert [
            line["account"]
            for entry in entries
            if entry["payment_intent_id"] == intent["id"]
            for line in entry["lines"]
        ] == ["CASH", "REVENUE"]
        assert {balance["account"] for balance in client.get("/v1/ledger/balances").json()} == {"CASH", "REVENUE"}


def test_fifty_concurrent_creates_with_one_key_make_one_intent_and_fifty_equal_answers(engine: Engine) -> None:
    async def at_once(headers: dict[str, str]) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=engine.base_url, headers=headers, timeout=10) as client:
            body = {"amount": "1.00", "currency": "BRL", "customer_ref": "one"}
            return await asyncio.gather(*(client.post("/v1/payment-intents", json=body) for _ in range(50)))

    with engine.api(), logged_in(engine) as client:
        answers = asyncio.run(at_once(dict(client.headers) | {"Idempotency-Key": str(uuid4())}))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}


def test_hundreds_of_concurrent_payments_all_settle_and_the_balances_are_the_fold_of_the_postings(
    engine: Engine,
) -> None:
    with engine.api(), engine.worker(), logged_in(engine) as client:
        before, cash_before = list_all_entries(client), cash(client)
        ids = asyncio.run(create_and_confirm(engine, dict(client.headers)))
        assert len(set(ids)) == PAYMENTS
        sum_of_amounts = sum(number + Decimal("0.01") for number in range(1, PAYMENTS + 1))
        eventually(lambda: cash(client) == cash_before + sum_of_amounts, seconds=60)
        entries = list_all_entries(client)
        assert Counter(entry["payment_intent_id"] for entry in entries[: -len(before) or None]) == Counter(ids)
        assert all(settled(client, payment_id) for payment_id in ids[::20])
        fold: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
        for entry in entries:
            for line in entry["lines"]:
                fold[line["account"], line["side"], line["currency"]] += Decimal(line["amount"])
        for balance in client.get("/v1/ledger/balances").json():
            assert Decimal(balance["debits_total"]) == fold[balance["account"], "DEBIT", balance["currency"]]
            assert Decimal(balance["credits_total"]) == fold[balance["account"], "CREDIT", balance["currency"]]


async def create_and_confirm(engine: Engine, headers: dict[str, str]) -> list[str]:
    at_once = asyncio.Semaphore(CONNECTIONS)
    async with httpx.AsyncClient(base_url=engine.base_url, headers=headers, timeout=30) as client:

        async def one(number: int) -> str:
            async with at_once:
                return await create_then_confirm(number)

        async def create_then_confirm(number: int) -> str:
            body = {"amount": f"{number}.01", "currency": "BRL", "customer_ref": f"CUST-{number}"}
            created = await client.post("/v1/payment-intents", json=body, headers={"Idempotency-Key": str(uuid4())})
            payment_id: str = created.raise_for_status().json()["id"]
            path = f"/v1/payment-intents/{payment_id}/confirm"
            (await client.post(path, headers={"Idempotency-Key": str(uuid4())})).raise_for_status()
            return payment_id

        return await asyncio.gather(*(one(number) for number in range(1, PAYMENTS + 1)))


def cash(client: httpx.Client) -> Decimal:
    balances = client.get("/v1/ledger/balances").json()
    return sum(
        (Decimal(b["balance"]) for b in balances if (b["account"], b["currency"]) == ("CASH", "BRL")), Decimal(0)
    )


def list_all_entries(client: httpx.Client) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    url = "/v1/ledger/entries?limit=200"
    while url:
        page = client.get(url)
        entries += page.json()
        url = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    return entries


def test_a_payment_waits_for_the_worker_and_for_rabbitmq_and_then_settles(
    engine: Engine, rabbitmq_server: RabbitmqServer
) -> None:
    with engine.api(), logged_in(engine) as client:
        first = create(client).json()["id"]
        confirm(client, first).raise_for_status()
        with engine.worker():
            eventually(lambda: settled(client, first))
            rabbitmq_server.stop()
            try:
                second = create(client).json()["id"]
                confirm(client, second).raise_for_status()
                readiness = client.get("/readyz")
                assert readiness.status_code == 200
                assert readiness.json()["status"] == "degraded"
                assert readiness.json()["dependencies"]["rabbitmq"] == "unreachable"
            finally:
                rabbitmq_server.start()
            eventually(lambda: settled(client, second))


def test_without_postgresql_every_answer_is_a_503_within_five_seconds_and_then_all_goes_on(
    engine: Engine, postgres: PostgresServer
) -> None:
    with engine.worker(), engine.api(), logged_in(engine) as client:
        waiting = create(client).json()["id"]
        postgres.stop()
        try:
            for answer in at_once(
                lambda: create(client),
                lambda: confirm(client, waiting),
                lambda: client.get("/v1/ledger/balances"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.elapsed.total_seconds() < 5
            readiness = client.get("/readyz")
            assert (readiness.status_code, readiness.json()["dependencies"]["postgresql"]) == (503, "unreachable")
            assert client.get("/healthz").status_code == 200
        finally:
            postgres.start()
        engine.wait_until_ready()
        eventually(lambda: confirm(client, waiting).is_success or None)
        eventually(lambda: settled(client, waiting))


def test_a_postgresql_that_does_not_answer_is_a_503_within_five_seconds_too(
    engine: Engine, postgres: PostgresServer
) -> None:
    with engine.api(), logged_in(engine) as client:
        waiting = create(client).json()["id"]
        postgres.pause()
        try:
            for answer in at_once(
                lambda: create(client),
                lambda: confirm(client, waiting),
                lambda: client.get("/v1/ledger/balances"),
                lambda: client.get(f"/v1/payment-intents/{waiting}"),
                lambda: client.get("/readyz"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.elapsed.total_seconds() < 5
        finally:
            postgres.resume()
        engine.wait_until_ready()
        eventually(lambda: client.get(f"/v1/payment-intents/{waiting}").is_success)


def test_the_processes_start_before_postgresql_and_serve_when_it_comes(
    engine: Engine, postgres: PostgresServer
) -> None:
    postgres.stop()
    try:
        with engine.api(), engine.worker():
            eventually(lambda: httpx.get(f"{engine.base_url}/healthz").is_success)
            assert httpx.get(f"{engine.base_url}/readyz").status_code == 503
            postgres.start()
            with logged_in(engine) as client:
                payment_id = create(client).json()["id"]
                confirm(client, payment_id).raise_for_status()
                eventually(lambda: settled(client, payment_id))
    finally:
        postgres.start()


def test_without_redis_payments_go_on(engine: Engine, redis_server: RedisServer) -> None:
    with engine.api(), logged_in(engine) as client:
        redis_server.stop()
        try:
            assert create(client).status_code == 201
            readiness = client.get("/readyz").json()
            assert (readiness["status"], readiness["dependencies"]["redis"]) == ("degraded", "unreachable")
        finally:
            redis_server.start()
        eventually(lambda: client.get("/readyz").json()["status"] == "ok")


def test_after_all_that_the_audit_finds_nothing_broken(engine: Engine) -> None:
    """Of this whole installation, after outages of every service and hundreds of payments at once."""
    report = json.loads(engine.run("verify", "--json"))
    assert report["ok"], report
    assert all(check["examined"] >= PAYMENTS for check in report["checks"] if "payment" in check["name"])


COMMANDS = [
    *("api", "worker", "dev", "status", "tail", "verify", "tenants", "users", "migrate", "seed"),
    *("outbox", "dead-letters", "openapi", "asyncapi"),
]


def test_the_program_lists_its_commands(engine: Engine) -> None:
    listed = engine.run("--help")
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(engine: Engine, name: str) -> None:
    assert f"payments-ledger {name}" in command(engine, name, "--help").stdout
