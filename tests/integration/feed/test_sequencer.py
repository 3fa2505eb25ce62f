"""Positions: each event gets one, in an order that never changes, and nothing slips in before what was read."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest
from uuid_utils.compat import uuid7

from payments_ledger.feed.patterns import EVERYTHING
from payments_ledger.feed.queries import delete_expired, read_events
from payments_ledger.feed.sequencer import extend_log
from payments_ledger.postgres.database import Database, driver_url, transaction_time
from payments_ledger.postgres.roles import relay_role
from payments_ledger.process.periodic import Again
from tests.integration.books import broken_checks, confirm_a_payment, create_a_payment, settle_a_payment
from tests.integration.conftest import opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def outbox(database_url: str) -> AsyncIterator[Database]:
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=2)) as relay:
        yield relay


async def extend(outbox: Database) -> None:
    while await extend_log(outbox) is Again.AT_ONCE:
        pass


async def feed(database: Database, tenant: str) -> list[tuple[int, UUID, int]]:
    """Position, aggregate and sequence of each event."""
    async with database.transaction([tenant]) as conn:
        found = await read_events(conn, tenant, after=0, wanted=EVERYTHING, limit=10_000)
    return [(event.position, event.aggregate_id, event.sequence) for event in found.events]


async def test_events_are_numbered_from_one_in_their_order(
    database: Database, outbox: Database, database_url: str, tenant: str
) -> None:
    first, second = await settle_a_payment(database, tenant), await create_a_payment(database, tenant)
    await extend(outbox)
    assert await feed(database, tenant) == [(1, first.id, 1), (2, first.id, 2), (3, first.id, 3), (4, second.id, 1)]
    await confirm_a_payment(database, second)
    await extend(outbox)
    assert (await feed(database, tenant))[-1] == (5, second.id, 2)
    assert await broken_checks(database_url, tenant) == {}


async def test_nothing_slips_in_before_what_was_read(
    database: Database, outbox: Database, database_url: str, tenant: str
) -> None:
    """A transaction that began first and commits last: its event comes last, and what came after it waits for it."""
    read: list[tuple[int, UUID, int]] = []
    held = uuid7()
    url = driver_url(database_url)
    with psycopg.connect(url) as slow:
        slow.execute("SELECT set_config('payments_ledger.tenant_ids', %s, false)", [tenant])
        before = await create_a_payment(database, tenant)
        slow.execute(
            """
            INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
            VALUES (%s, %s, 'payment.settled', %s, 1, '{}', '{}')
            """,
            [tenant, uuid7(), held],
        )
        after = await create_a_payment(database, tenant)
        await extend(outbox)
        read = await feed(database, tenant)
        assert [aggregate for _, aggregate, _ in read] == [before.id]
        slow.commit()
    await extend(outbox)
    everything = await feed(database, tenant)
    assert everything[: len(read)] == read
    assert {aggregate for _, aggregate, _ in everything} == {before.id, held, after.id}
    assert [position for position, _, _ in everything] == [1, 2, 3]


async def test_of_workers_at_once_one_appends_and_each_event_is_there_once(
    database: Database, outbox: Database, tenant: str
) -> None:
    async def pay() -> None:
        for _ in range(5):
            await settle_a_payment(database, tenant)

    async def work() -> None:
        for _ in range(40):
            await extend_log(outbox)
            await asyncio.sleep(0)

    await asyncio.gather(pay(), pay(), pay(), work(), work())
    await extend(outbox)
    found = await feed(database, tenant)
    assert [position for position, _, _ in found] == list(range(1, 46))
    for aggregate in {aggregate for _, aggregate, _ in found}:
        assert [sequence for _, a, sequence in found if a == aggregate] == [1, 2, 3]


async def test_an_idle_log_writes_nothing(database: Database, outbox: Database, database_url: str, tenant: str) -> None:
    await create_a_payment(database, tenant)
    await extend(outbox)
    with psycopg.connect(driver_url(database_url), autocommit=True) as conn:

        def next_number() -> int:
            row = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
            assert row is not None
            return int(row[0])

        before = next_number()
        for _ in range(5):
            assert await extend_log(outbox) is None
        # Others may have written meanwhile, this log has not.
        assert next_number() - before < 5


async def test_events_of_before_get_their_positions_first(
    database: Database, outbox: Database, database_url: str, tenant: str
) -> None:
    old = await settle_a_payment(database, tenant)
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("UPDATE outbox_events SET written_by = NULL WHERE tenant_id = %s", [tenant])
        conn.execute(
            "UPDATE event_log_reach SET older_tenant = '', older_aggregate = %s, older_sequence = 0", [UUID(int=0)]
        )
    new = await create_a_payment(database, tenant)
    await extend(outbox)
    assert await feed(database, tenant) == [(1, old.id, 1), (2, old.id, 2), (3, old.id, 3), (4, new.id, 1)]
    assert await broken_checks(database_url, tenant) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_log SET position = position + 1",
        "TRUNCATE event_log",
        "UPDATE event_log_heads SET last_position = 1",
    ],
)
async def test_positions_never_change(
    database: Database, outbox: Database, owner: Database, tenant: str, statement: str
) -> None:
    await settle_a_payment(database, tenant)
    await extend(outbox)
    for whose, named in ((owner, [tenant]), (outbox, [])):
        with pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.InsufficientPrivilege)):
            async with whose.transaction(named) as conn:
                await conn.execute(statement.encode())


async def test_positions_of_dropped_events_go_and_are_not_given_again(
    database: Database, outbox: Database, database_url: str, tenant: str
) -> None:
    old = await settle_a_payment(database, tenant)
    await extend(outbox)
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM outbox_events WHERE aggregate_id = %s", [old.id])
    async with outbox.transaction() as conn:
        assert await delete_expired(conn, await transaction_time(conn), 1000) >= 3
    new = await create_a_payment(database, tenant)
    await extend(outbox)
    assert await feed(database, tenant) == [(4, new.id, 1)]


async def test_a_log_that_differs_from_the_events_is_found(
    database: Database, outbox: Database, database_url: str, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    await extend(outbox)
    with psycopg.connect(driver_url(database_url).replace("app:app@", "postgres@")) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM event_log WHERE tenant_id = %s AND position = 2", [tenant])
        conn.execute("UPDATE event_log SET event_id = %s WHERE tenant_id = %s AND position = 3", [uuid4(), tenant])
    assert set(await broken_checks(database_url, tenant)) == {
        "events_have_a_position",
        "positions_follow_without_a_gap",
    }
