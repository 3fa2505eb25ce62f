"""A transaction sends without waiting: what fails in it is raised at the latest by its end, and nothing stays of it."""

from collections.abc import Sequence
from contextlib import suppress

import psycopg
import pytest

from payments_ledger.errors import SchemaMissing
from payments_ledger.postgres.database import Connection, Database, RolledBack, transaction_time

pytestmark = pytest.mark.anyio

RENAME = "UPDATE tenants SET name = 'changed' WHERE tenant_id = %s"


async def name_of(owner: Database, tenant: str) -> str:
    async with owner.transaction([tenant]) as conn:
        cursor = await conn.execute("SELECT name FROM tenants WHERE tenant_id = %s", [tenant])
        [[name]] = await cursor.fetchall()
    return str(name)


async def test_an_error_that_nobody_waited_for_is_raised_at_the_end(owner: Database, tenant: str) -> None:
    async def rename() -> None:
        async with owner.transaction([tenant]) as conn:
            await conn.execute(RENAME, [tenant])
            await conn.execute("SELECT 1 / 0")
            await conn.execute(RENAME, [tenant])

    before = await name_of(owner, tenant)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await rename()
    assert await name_of(owner, tenant) == before


@pytest.mark.parametrize("is_synchronized", [True, False])
async def test_an_error_that_is_kept_quiet_is_no_commit(owner: Database, tenant: str, is_synchronized: bool) -> None:
    async def rename() -> None:
        async with owner.transaction([tenant]) as conn:
            await conn.execute(RENAME, [tenant])
            with suppress(psycopg.errors.DivisionByZero):
                await (await conn.execute("SELECT 1 / 0")).fetchall()
            if is_synchronized:
                async with conn.pipeline() as pipeline:
                    with suppress(psycopg.Error):
                        await pipeline.sync()

    before = await name_of(owner, tenant)
    with pytest.raises(RolledBack if is_synchronized else psycopg.errors.PipelineAborted):
        await rename()
    assert await name_of(owner, tenant) == before


async def test_a_part_may_fail_by_itself(owner: Database, tenant: str) -> None:
    async def rename_in_part(conn: Connection) -> None:
        async with conn.transaction():
            await conn.execute("UPDATE tenants SET name = 'undone' WHERE tenant_id = %s", [tenant])
            await (await conn.execute("SELECT 1 / 0")).fetchall()

    async with owner.transaction([tenant]) as conn:
        await conn.execute(RENAME, [tenant])
        with pytest.raises(psycopg.errors.DivisionByZero):
            await rename_in_part(conn)
    assert await name_of(owner, tenant) == "changed"


class Written:
    """Writes rows for `defer`, and counts how often."""

    def __init__(self) -> None:
        self.calls: list[Sequence[str]] = []

    async def __call__(self, conn: Connection, names: Sequence[str]) -> None:
        self.calls.append(list(names))
        await conn.execute("UPDATE tenants SET name = name || %s", ["".join(names)])


async def test_what_is_written_at_the_commit_is_written_once_and_together(owner: Database, tenant: str) -> None:
    before = await name_of(owner, tenant)
    written = Written()
    async with owner.transaction([tenant]) as conn:
        conn.defer(written, ["a", "b"])
        conn.defer(written, [])
        conn.defer(written, ["c"])
        assert not written.calls
    assert written.calls == [["a", "b", "c"]]
    assert await name_of(owner, tenant) == f"{before}abc"


async def test_what_a_failed_transaction_was_to_write_is_not_written_by_the_next(owner: Database, tenant: str) -> None:
    written = Written()
    before = await name_of(owner, tenant)

    async def fail() -> None:
        async with owner.transaction([tenant]) as conn:
            conn.defer(written, ["never"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await name_of(owner, tenant) == before
    assert not written.calls


async def test_what_a_failed_part_was_to_write_is_not_written(owner: Database, tenant: str) -> None:
    before = await name_of(owner, tenant)
    written = Written()

    async def fail_in_part(conn: Connection) -> None:
        async with conn.transaction():
            conn.defer(written, ["never"])
            raise ZeroDivisionError

    async with owner.transaction([tenant]) as conn:
        conn.defer(written, ["a"])
        with pytest.raises(ZeroDivisionError):
            await fail_in_part(conn)
        async with conn.transaction():
            conn.defer(written, ["b"])
        conn.defer(written, ["c"])
    assert await name_of(owner, tenant) == f"{before}abc"


async def test_the_time_is_that_of_the_transaction(owner: Database) -> None:
    async with owner.transaction() as conn:
        cursor = await conn.execute("SELECT now() FROM pg_sleep(0.01)")
        assert await transaction_time(conn) == await transaction_time(conn)
        assert await cursor.fetchall() == [(await transaction_time(conn),)]
        first = await transaction_time(conn)
    async with owner.transaction() as conn:
        assert await transaction_time(conn) > first


async def test_a_connection_is_as_good_as_new_after_a_failure(owner: Database, tenant: str) -> None:
    async def fail() -> None:
        async with owner.transaction([tenant]) as conn:
            await conn.execute(RENAME, [tenant])
            raise ZeroDivisionError

    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            await fail()
    async with owner.transaction() as conn:
        assert await (await conn.execute("SELECT FROM tenants")).fetchall() == []


async def test_a_function_that_is_missing_is_a_migration_that_is_missing(owner: Database) -> None:
    with pytest.raises(SchemaMissing):
        async with owner.transaction() as conn:
            await conn.execute("SELECT comes_with_the_next_version()")
