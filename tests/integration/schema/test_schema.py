"""The database's own guards: what the code must never do, PostgreSQL refuses as well.

Long because it has a case for each guard of the schema.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command

from payments_ledger.access.policy import ROLE_PERMISSIONS
from payments_ledger.demo.seed import seed
from payments_ledger.payments.lifecycle import MOVES
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.postgres.roles import relay_role, runtime_role
from payments_ledger.schema.migrate import migrate
from tests.integration.books import settle_a_payment
from tests.integration.conftest import opened
from tests.integration.schema.tables import TABLES
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

# What is the same for all tenants, with the first column of its key; nobody but a migration can change it.
SHARED_TABLES = {"payment_moves": "before_status", "currencies": "code"}


def test_migrate_and_seed_can_be_repeated_and_started_twice_at_once(postgres: PostgresServer) -> None:
    url = postgres.create_database("twice")
    with ThreadPoolExecutor(2) as starts:
        list(starts.map(migrate, [url, url]))
        list(starts.map(lambda _: asyncio.run(seed(url)), range(2)))
    migrate(url)
    asyncio.run(seed(url))
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', '*,tenant_demo', true)")
        assert conn.execute("SELECT count(*) FROM users").fetchone() == (4,)


def test_tenants_from_before_policies_get_the_one_that_keeps_their_roles_working(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database("upgraded")
    upgrade = command.upgrade
    with monkeypatch.context() as at_first:
        at_first.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        migrate(url)
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', '*,old', false)")
        conn.execute("INSERT INTO tenants (tenant_id, name, plan, region) VALUES ('old', 'Old', 'pro', 'region-a')")
        conn.commit()
        migrate(url)
        rows = conn.execute("SELECT tenant_id, name, effect, roles FROM policies ORDER BY tenant_id").fetchall()
        assert rows == [(tenant, "what-roles-permit", "allow", []) for tenant in ("*", "old")]
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', '', false)")
        assert conn.execute("SELECT FROM tenants").fetchall() == []


def test_older_tenants_get_the_role_finance_and_their_administrators_its_permissions(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database("before_finance")
    upgrade = command.upgrade
    with monkeypatch.context() as at_first:
        at_first.setattr(command, "upgrade", lambda config, _: upgrade(config, "0015"))
        migrate(url)
    with psycopg.connect(driver_url(url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', '*,old', false)")
        conn.execute("INSERT INTO tenants VALUES ('old', 'Old', 'pro', 'region-a')")
        conn.execute(
            "INSERT INTO roles VALUES ('old', 'admin', '{admin,payments:read}'), ('old', 'ops', '{ledger:read}')"
        )
        conn.commit()
        migrate(url)
        rows = conn.execute("SELECT name, permissions FROM roles WHERE tenant_id = 'old' ORDER BY name").fetchall()
    assert rows == [
        ("admin", ["admin", "events:read", "ledger:write", "payments:read", "payments:refund"]),
        ("finance", sorted(ROLE_PERMISSIONS["finance"])),
        ("ops", ["events:read", "ledger:read"]),
    ]


async def test_every_table_is_under_forced_row_level_security_and_all_but_one_lead_their_key_with_the_tenant(
    owner: Database,
) -> None:
    async with owner.transaction() as conn:
        cursor = await conn.execute(
            """
            SELECT class.relname, class.relrowsecurity AND class.relforcerowsecurity,
                   (SELECT attname FROM pg_attribute WHERE attrelid = class.oid AND attnum = key.conkey[1])
            FROM pg_class AS class
            LEFT JOIN pg_constraint AS key ON key.conrelid = class.oid AND key.contype = 'p'
            WHERE class.relkind IN ('r', 'p') AND class.relnamespace = 'public'::regnamespace
              AND class.relname <> 'alembic_version' AND NOT class.relispartition
            """
        )
        rows = await cursor.fetchall()
    assert sorted(rows) == sorted(
        (table, True, key) for table, key in [*((name, "tenant_id") for name in TABLES), *SHARED_TABLES.items()]
    )


@pytest.mark.parametrize("table", SHARED_TABLES)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {}", "INSERT INTO {} SELECT * FROM {}"])
async def test_what_all_tenants_share_is_not_changed_by_the_runtime_role(
    database: Database, table: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.transaction() as conn:
            await conn.execute(statement.replace("{}", table).encode())


async def test_the_moves_of_a_payment_are_those_of_its_lifecycle(database: Database) -> None:
    async with database.transaction() as conn:
        cursor = await conn.execute("SELECT before_status, after_status, event_type, audit_action FROM payment_moves")
        rows = await cursor.fetchall()
    assert sorted(rows) == sorted((move.before or "", move.after, move.event, move.action) for move in MOVES)


async def test_nobody_but_the_owner_has_any_right_on_a_partition(owner: Database) -> None:
    async with owner.transaction() as conn:
        cursor = await conn.execute("SELECT relname, relacl::text FROM pg_class WHERE relispartition AND relkind = 'r'")
        partitions = await cursor.fetchall()
    assert len(partitions) >= 6
    assert {rights for _, rights in partitions} == {None}


DIVIDED = ("audit_log", "outbox_events")
PARTITIONS = [f"{table}_{part}" for table in DIVIDED for part in (f"{datetime.now(UTC):%Y_%m}", "rest")]


async def test_every_partition_has_every_guard(owner: Database) -> None:
    # pg_trigger.tgtype: 1 is a trigger for each row, 8 DELETE, 16 UPDATE, 32 TRUNCATE.
    async with owner.transaction() as conn:
        cursor = await conn.execute(
            """
            SELECT relname, relrowsecurity, relforcerowsecurity,
                   array_agg(DISTINCT polname) = '{named_tenants}',
                   bool_or(tgtype & 1 = 1 AND tgtype & 8 = 8), bool_or(tgtype & 1 = 1 AND tgtype & 16 = 16),
                   bool_or(tgtype & 1 = 0 AND tgtype & 8 = 8), bool_or(tgtype & 1 = 0 AND tgtype & 16 = 16),
                   bool_or(tgtype & 32 = 32)
            FROM pg_inherits
            JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r'
            LEFT JOIN pg_trigger ON tgrelid = pg_class.oid AND tgenabled = 'O'
            LEFT JOIN pg_policy ON polrelid = pg_class.oid
            GROUP BY pg_class.oid
            """
        )
        partitions = await cursor.fetchall()
    assert {name for name, *_ in partitions} >= set(PARTITIONS)
    assert [name for name, *guards in partitions if not all(guards)] == []


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("table", [*DIVIDED, *PARTITIONS])
async def test_the_login_user_changes_nothing_in_a_partition(
    database: Database, owner: Database, tenant: str, table: str, statement: str, is_named: bool
) -> None:
    await settle_a_payment(database, tenant)
    with pytest.raises(psycopg.errors.RestrictViolation):
        async with owner.transaction([tenant] if is_named else []) as conn:
            await conn.execute(statement.format(table).encode())


@pytest.mark.parametrize("table", PARTITIONS)
async def test_nobody_sees_a_row_of_a_partition_without_naming_its_tenant(
    database: Database, owner: Database, tenant: str, table: str
) -> None:
    await settle_a_payment(database, tenant)
    async with owner.transaction() as conn:
        assert await (await conn.execute(f"SELECT FROM {table}".encode())).fetchall() == []


DELIVERY = ("attempts", "next_attempt_at", "last_error", "published_at", "buried_at")


async def test_of_an_event_the_relay_changes_the_delivery_and_nobody_else_changes_anything(
    database: Database, owner: Database, database_url: str, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    async with owner.transaction() as conn:
        cursor = await conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'outbox_events'::regclass AND attnum > 0"
        )
        columns = [column for (column,) in await cursor.fetchall()]
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as relay:
        for column in columns:
            statement = f"UPDATE outbox_events SET {column} = {column} WHERE tenant_id = '{tenant}'".encode()
            for whose, refusal in ((owner, psycopg.errors.RestrictViolation), (database, psycopg.Error)):
                with pytest.raises(refusal):
                    async with whose.transaction([tenant]) as conn:
                        await conn.execute(statement)
            if column in DELIVERY:
                async with relay.transaction() as conn:
                    await conn.execute(statement)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with relay.transaction() as conn:
                        await conn.execute(statement)


@pytest.mark.parametrize(
    ("table", "trigger"), [("audit_log", "audit_log_is_fact"), ("outbox_events", "outbox_events_are_facts")]
)
async def test_a_row_is_guarded_where_no_statement_names_its_table(
    database: Database, owner: Database, tenant: str, table: str, trigger: str
) -> None:
    # As a foreign key with ON DELETE CASCADE would reach it: past the trigger for a statement.
    async def delete() -> None:
        async with owner.transaction([tenant]) as conn:
            await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}".encode())
            await conn.execute(f"DELETE FROM {table}".encode())

    await settle_a_payment(database, tenant)
    with pytest.raises(psycopg.errors.RestrictViolation):
        await delete()


@pytest.mark.parametrize("table", TABLES)
async def test_no_row_is_seen_without_naming_its_tenant(
    database: Database, owner: Database, tenant: str, table: str
) -> None:
    await settle_a_payment(database, tenant, idempotency_key="k")
    for reader in (database, owner):
        async with reader.transaction() as conn:
            assert await (await conn.execute(f"SELECT FROM {table}")).fetchall() == []
        async with reader.transaction(["another"]) as conn:
            assert await (await conn.execute(f"SELECT FROM {table}")).fetchall() == []


async def test_a_row_of_a_tenant_that_was_not_named_cannot_be_written(database: Database, tenant: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with database.transaction(["another"]) as conn:
            await conn.execute(
                """
                INSERT INTO audit_log (tenant_id, id, principal, action, target, correlation_id, detail)
                VALUES (%s, %s, 'p', 'a', 't', 'c', '{}')
                """,
                [tenant, uuid4()],
            )


async def test_the_policy_of_the_tenants_is_not_what_rows_are_searched_by(database: Database, tenant: str) -> None:
    # As a search condition it would be tried once for each tenant that the transaction named, at every row.
    async with database.transaction([tenant]) as conn:
        # A table that is still small would be read as a whole.
        await conn.execute("SET LOCAL enable_seqscan = off")
        cursor = await conn.execute(
            "EXPLAIN SELECT FROM payment_intents WHERE tenant_id = %s AND id = %s", [tenant, uuid4()]
        )
        plan = "\n".join(line for (line,) in await cursor.fetchall())
    [condition] = [line for line in plan.splitlines() if "Index Cond" in line]
    assert "ANY" not in condition
    assert "ANY" in plan


async def test_a_tenant_is_never_deleted(owner: Database, tenant: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="suspend"):
        async with owner.transaction([tenant]) as conn:
            await conn.execute("DELETE FROM tenants WHERE tenant_id = %s", [tenant])


async def test_the_runtime_roles_own_nothing_and_have_no_power(owner: Database, database_url: str) -> None:
    roles = [runtime_role(database_url), relay_role(database_url)]
    async with owner.transaction() as conn:
        cursor = await conn.execute(
            """
            SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolcanlogin OR rolreplication,
                   (SELECT count(*) FROM pg_class WHERE relowner = pg_roles.oid)
            FROM pg_roles WHERE rolname = ANY (%s)
            """,
            [roles],
        )
        assert await cursor.fetchall() == [(False, 0), (False, 0)]


async def test_a_superuser_in_the_url_gains_nothing_over_the_runtime_role(
    database_url: str, database: Database, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    superuser_url = database_url.replace("app:app@", "postgres@")
    superuser = Database(superuser_url, role=runtime_role(database_url), pool_size_max=2)
    await superuser.open()
    try:
        async with superuser.transaction() as conn:
            assert await (await conn.execute("SELECT FROM payment_intents")).fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with superuser.transaction([tenant]) as conn:
                await conn.execute("DELETE FROM ledger_postings")
    finally:
        await superuser.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payment_intents SET status = 'AUTHORIZED', version = version + 1",
        "UPDATE payment_intents SET status = 'CREATED', version = version + 1",
        "UPDATE payment_intents SET status = 'SETTLED', version = version + 1",
        "UPDATE payment_intents SET version = version + 1",
        "UPDATE payment_intents SET amount = amount + 1, version = version + 1",
        "UPDATE payment_intents SET currency = 'USD', version = version + 1",
        "UPDATE payment_intents SET customer_ref = 'another', version = version + 1",
        "UPDATE payment_intents SET order_id = 'another', version = version + 1",
        "DELETE FROM payment_intents",
        "TRUNCATE payment_intents CASCADE",
        "UPDATE ledger_entries SET kind = 'another'",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries CASCADE",
        "UPDATE ledger_postings SET amount = amount + 1",
        "DELETE FROM ledger_postings",
        "TRUNCATE ledger_postings",
        "UPDATE audit_log SET principal = 'another'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM orders",
        "TRUNCATE orders",
    ],
)
async def test_what_is_settled_posted_or_audited_cannot_be_changed(
    database: Database, owner: Database, tenant: str, statement: str
) -> None:
    await settle_a_payment(database, tenant)
    with pytest.raises(psycopg.errors.RestrictViolation):
        async with owner.transaction([tenant]) as conn:
            await conn.execute(statement)
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)):
        async with database.transaction([tenant]) as conn:
            await conn.execute(statement)


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("SET amount = 0", psycopg.errors.CheckViolation),
        ("SET amount = -1", psycopg.errors.CheckViolation),
        ("SET currency = 'brl'", psycopg.errors.CheckViolation),
        ("SET customer_ref = ''", psycopg.errors.CheckViolation),
        ("SET customer_ref = repeat('x', 129)", psycopg.errors.CheckViolation),
        ("SET status = 'AUTHORIZED'", psycopg.errors.RestrictViolation),
        ("SET version = 2", psycopg.errors.RestrictViolation),
        ("SET tenant_id = '*'", psycopg.errors.CheckViolation),
    ],
)
async def test_a_payment_begins_within_its_bounds(
    owner: Database, tenant: str, statement: str, refusal: type[psycopg.Error]
) -> None:
    column, _, value = statement.removeprefix("SET ").partition(" = ")
    values = {
        "tenant_id": f"'{tenant}'",
        "id": f"'{uuid4()}'",
        "amount": "100",
        "currency": "'BRL'",
        "status": "'CREATED'",
        "version": "1",
        "customer_ref": "'C'",
        "created_at": "now()",
        "updated_at": "now()",
        column: value,
    }
    with pytest.raises(refusal):
        async with owner.transaction([tenant, "*"]) as conn:
            await conn.execute(
                f"INSERT INTO payment_intents ({', '.join(values)}) VALUES ({', '.join(values.values())})"
            )


async def test_a_source_has_one_entry_of_a_kind(database: Database, tenant: str) -> None:
    payment = await settle_a_payment(database, tenant)
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with database.transaction([tenant]) as conn:
            await conn.execute(
                """
                INSERT INTO ledger_entries (tenant_id, posted_at, id, kind, source_id, correlation_id)
                VALUES (%s, now(), %s, 'settlement', %s, 'c')
                """,
                [tenant, uuid4(), payment.id],
            )


@pytest.mark.parametrize(
    "columns",
    [
        "debit_account, debit_account, currency, amount",
        "debit_account, credit_account, currency, 0",
        "debit_account, credit_account, currency, -amount",
    ],
)
async def test_a_posting_has_two_accounts_and_an_amount_above_zero(
    database: Database, owner: Database, tenant: str, columns: str
) -> None:
    await settle_a_payment(database, tenant)
    with pytest.raises(psycopg.errors.CheckViolation):
        async with owner.transaction([tenant]) as conn:
            await conn.execute(
                f"INSERT INTO ledger_postings SELECT tenant_id, posted_at, entry_id, 2, {columns} FROM ledger_postings"
            )


async def test_a_posting_cannot_refer_to_another_tenants_entry_or_account(
    database: Database, owner: Database, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    other = f"tenant-{uuid4()}"
    async with owner.transaction([tenant, other]) as conn:
        await conn.execute("INSERT INTO tenants (tenant_id, name, plan, region) VALUES (%s, 'x', 'x', 'x')", [other])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        async with owner.transaction([tenant, other]) as conn:
            await conn.execute(
                """
                INSERT INTO ledger_postings
                SELECT %s, posted_at, entry_id, 2, debit_account, credit_account, currency, amount FROM ledger_postings
                """,
                [other],
            )


SEEN_BY_THE_RELAY = {
    "outbox_events",
    "idempotency_keys",
    "payment_counts",
    "payment_expiries",
    "ledger_transactions",
    "event_log",
    "event_log_heads",
    "event_log_reach",
}


async def test_the_relay_sees_the_outbox_and_the_counts_of_all_and_nothing_else(
    database: Database, database_url: str, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    relay = Database(database_url, role=relay_role(database_url), pool_size_max=2)
    await relay.open()
    try:
        async with relay.transaction() as conn:
            cursor = await conn.execute("SELECT count(*) FROM outbox_events WHERE tenant_id = %s", [tenant])
            assert await cursor.fetchone() == (3,)
        for table in set(TABLES) - SEEN_BY_THE_RELAY:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with relay.transaction([tenant]) as conn:
                    await conn.execute(f"SELECT FROM {table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with relay.transaction([tenant]) as conn:
                await conn.execute("UPDATE outbox_events SET payload = '{}'")
    finally:
        await relay.close()


async def test_ids_are_in_the_order_of_their_making() -> None:
    from uuid_utils.compat import uuid7

    ids: list[UUID] = [uuid7() for _ in range(1000)]
    assert ids == sorted(ids)
    assert ids[0].version == 7
