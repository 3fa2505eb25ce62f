"""One key, one execution: repetitions get the first answer, whoever comes first and however many come at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.commit.idempotency import Key, Keyed, StoredResponse, delete_expired_keys, respond_once
from payments_ledger.errors import IdempotencyKeyReused, Rejected
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.use_cases import CreatePayments, create_payments
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role
from tests.integration.books import creation

pytestmark = pytest.mark.anyio


async def render(command: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> StoredResponse:
    [payment] = outcomes
    assert isinstance(payment, Payment)
    return StoredResponse(201, str(payment.id).encode(), location=f"/{payment.id}")


def request(
    tenant: str, key: str | None = "key", *, fingerprint: bytes = b"same", lifetime: int = 60
) -> Keyed[CreatePayments, Any]:
    sent_under = Key(tenant, "p", "POST /", key, fingerprint, lifetime) if key else None
    return Keyed(create_payments, render, creation(tenant), sent_under)


async def submit(database: Database, *requests: Keyed[CreatePayments, Any]) -> list[StoredResponse | Rejected]:
    async with database.transaction([requests[0].tenant_id]) as conn:
        return list(await respond_once(conn, requests))


async def count_payments(database: Database, tenant: str) -> int:
    async with database.transaction([tenant]) as conn:
        row = await (await conn.execute("SELECT count(*) FROM payment_intents")).fetchone()
        assert row
        return int(row[0])


async def test_a_repetition_gets_the_first_answer_and_does_nothing(database: Database, tenant: str) -> None:
    [first] = await submit(database, request(tenant))
    [again] = await submit(database, request(tenant))
    assert isinstance(first, StoredResponse)
    assert again == replace(first, replayed=True)
    assert await count_payments(database, tenant) == 1


async def test_repetitions_within_a_batch_get_the_first_answer(database: Database, tenant: str) -> None:
    answers = await submit(
        database, *(request(tenant) for _ in range(5)), request(tenant, "other"), request(tenant, None)
    )
    assert isinstance(answers[0], StoredResponse)
    assert answers[1:5] == [replace(answers[0], replayed=True)] * 4
    assert await count_payments(database, tenant) == 3


async def test_another_request_under_the_same_key_is_refused(database: Database, tenant: str) -> None:
    await submit(database, request(tenant))
    [later] = await submit(database, request(tenant, fingerprint=b"another"))
    _, together = await submit(database, request(tenant, "new"), request(tenant, "new", fingerprint=b"another"))
    for answer in (later, together):
        assert isinstance(answer, Rejected)
        assert isinstance(answer.error, IdempotencyKeyReused)
    assert await count_payments(database, tenant) == 2


async def test_a_key_counts_for_its_principal_and_route_only(database: Database, tenant: str) -> None:
    keys = [Key(tenant, principal, route, "key", b"same", 60) for principal in "pq" for route in ("POST /a", "POST /b")]
    answers = await submit(database, *(replace(request(tenant), key=key) for key in keys))
    assert len(set(answers)) == 4


async def test_fifty_at_once_over_several_group_commits_make_one_payment(database: Database, tenant: str) -> None:
    processes = [GroupCommit(database.transaction) for _ in range(3)]
    answers = await asyncio.gather(
        *(processes[number % 3].submit(respond_once, request(tenant)) for number in range(50))
    )
    assert {answer.body for answer in answers if isinstance(answer, StoredResponse)} == {answers[0].body}  # type: ignore[union-attr]
    assert sum(isinstance(answer, StoredResponse) and not answer.replayed for answer in answers) == 1
    assert await count_payments(database, tenant) == 1


async def test_a_transaction_whose_key_was_used_meanwhile_is_to_be_run_again(database: Database, tenant: str) -> None:
    async def lose_the_race() -> None:
        async with database.transaction([tenant]) as conn:
            await respond_once(conn, [request(tenant)])
            await submit(database, request(tenant))

    with pytest.raises(psycopg.errors.SerializationFailure):
        await lose_the_race()
    assert await count_payments(database, tenant) == 1


async def test_a_key_that_ran_out_can_be_used_again(database: Database, tenant: str) -> None:
    [first] = await submit(database, request(tenant, lifetime=0))
    [second] = await submit(database, request(tenant, lifetime=60))
    [third] = await submit(database, request(tenant))
    assert isinstance(first, StoredResponse)
    assert isinstance(second, StoredResponse)
    assert first.body != second.body
    assert third == replace(second, replayed=True)


async def test_keys_that_ran_out_are_deleted_and_no_others(database: Database, database_url: str, tenant: str) -> None:
    await submit(database, request(tenant, "old", lifetime=0), request(tenant, "new", lifetime=60))
    relay = Database(database_url, role=relay_role(database_url), pool_size_max=2)
    await relay.open()
    async with relay.transaction() as conn:
        await delete_expired_keys(conn, 1000)
    await relay.close()
    async with database.transaction([tenant]) as conn:
        assert await (await conn.execute("SELECT key FROM idempotency_keys")).fetchall() == [("new",)]
