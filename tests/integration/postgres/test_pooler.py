"""Behind a pooler in transaction mode nothing rests on a session: what would be set at its start is set each time."""

from collections.abc import Callable

import psycopg
import pytest

from payments_ledger.errors import TooBusy
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.postgres.database import SERVER_SETTINGS, Database, driver_url
from payments_ledger.postgres.roles import auditor_role, runtime_role
from payments_ledger.verify import audit
from tests.integration.books import settle_a_payment
from tests.integration.conftest import opened

pytestmark = pytest.mark.anyio


def pooled(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}pgbouncer=true"


def test_the_mark_is_not_for_the_server(database_url: str) -> None:
    assert driver_url(pooled(database_url)) == driver_url(database_url)
    assert driver_url("postgresql+psycopg://u@h/d?pgbouncer=true") == "postgresql://u@h/d"


async def test_settings_end_with_their_transaction(database_url: str) -> None:
    shown = "SELECT " + ", ".join(f"current_setting('{name}')" for name in SERVER_SETTINGS)
    async with opened(Database(pooled(database_url), role=runtime_role(database_url), pool_size_max=1)) as database:
        async with database.transaction() as conn:
            within = await (await conn.execute(f"{shown}, current_user")).fetchone()
            connection = conn
        after = await (await connection.execute(f"{shown}, current_user")).fetchone()
    unpooled = Database(database_url, role=runtime_role(database_url), pool_size_max=1)
    async with opened(unpooled), unpooled.transaction() as conn:
        assert within == await (await conn.execute(f"{shown}, current_user")).fetchone()
    async with await psycopg.AsyncConnection.connect(driver_url(database_url)) as bare:
        assert after == await (await bare.execute(f"{shown}, current_user")).fetchone()


async def test_a_wait_for_a_lock_ends_there_too(database_url: str, tenant: str, owner: Database) -> None:
    async with (
        opened(
            Database(pooled(database_url), role=None, pool_size_max=1, server_settings={"lock_timeout": "100ms"})
        ) as database,
        owner.transaction([tenant]) as holder,
    ):
        await holder.execute("UPDATE tenants SET name = name WHERE tenant_id = %s", [tenant])
        with pytest.raises(TooBusy):
            async with database.transaction([tenant]) as conn:
                await conn.execute("UPDATE tenants SET name = name WHERE tenant_id = %s", [tenant])


async def test_statements_are_never_prepared(database_url: str) -> None:
    async with opened(Database(pooled(database_url), role=None, pool_size_max=1)) as database:
        for _ in range(20):
            async with database.transaction() as conn:
                await conn.execute("SELECT 1 AS often")
        async with database.transaction() as conn:
            assert await (await conn.execute("SELECT FROM pg_prepared_statements")).fetchall() == []


async def test_the_audit_sees_one_moment_there_too(database_url: str, database: Database, tenant: str) -> None:
    await settle_a_payment(database, tenant)
    role, settings = auditor_role(database_url), audit.SERVER_SETTINGS
    async with opened(Database(pooled(database_url), role=role, pool_size_max=1, server_settings=settings)) as auditor:
        async with auditor.transaction() as conn:
            shown = await (await conn.execute("SHOW transaction_isolation")).fetchone()
        assert shown == ("repeatable read",)
    results = [
        result async for result in audit.audit(pooled(database_url), INVARIANTS, tenant_id=tenant, bounds=BOUNDS)
    ]
    assert len(results) == len(INVARIANTS)
    assert all(result.ok for result in results)


@pytest.mark.parametrize("is_waited_for", [True, False])
@pytest.mark.parametrize("seen_by", [pooled, str], ids=["pooler", "session"])
async def test_a_write_in_a_pool_opened_read_only_is_refused_by_name_and_is_no_lost_connection(
    database_url: str, seen_by: Callable[[str], str], is_waited_for: bool
) -> None:
    url, role, settings = seen_by(database_url), auditor_role(database_url), audit.SERVER_SETTINGS

    async def delete(auditor: Database) -> None:
        async with auditor.transaction() as conn:
            deleted = await conn.execute("DELETE FROM payment_intents RETURNING id")
            if is_waited_for:
                await deleted.fetchall()

    async with opened(Database(url, role=role, pool_size_max=1, server_settings=settings)) as auditor:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await delete(auditor)
