"""The whole audit: every invariant over one consistent view of the database, two at a time, changing nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from payments_ledger.errors import UnknownTenant
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.verify.horizon import find_horizon
from payments_ledger.verify.invariant import FAILURES_SHOWN, Invariant

# Each reads other tables in another way, so that two of them keep two cores busy where one would wait.
INVARIANTS_AT_ONCE = 2

# Every invariant sees the same moment, however long the audit takes and whatever happens meanwhile.
SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "30min",
    # The connection that holds the moment for the others has nothing to do itself.
    "idle_in_transaction_session_timeout": "0",
    # A million payments then fit into the hash tables of two queries, which take less than 2 GB.
    "work_mem": "256MB",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What was found: `broken` of `examined` rows, and the first of them, each with what was expected."""

    invariant: Invariant
    examined: int
    broken: int
    failures: list[Mapping[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether the invariant holds."""
        return self.broken == 0


async def audit(
    database_url: str,
    invariants: Sequence[Invariant],
    *,
    tenant_id: str | None = None,
    since: datetime | None = None,
    bounds: Mapping[str, int],
) -> AsyncIterator[Result]:
    """The result of each invariant, in their order, as it is found.

    `since` leaves out the rows that were last written before; `tenant_id` those of other tenants; `bounds` are the
    parameters that the invariants name, such as how long something may take. It has connections of its own, because
    its transactions are read-only and see one moment. Raises UnknownTenant, DatabaseUnavailable or SchemaMissing.
    """
    database = Database(
        database_url,
        role=auditor_role(database_url),
        pool_size_max=INVARIANTS_AT_ONCE + 1,
        server_settings=SERVER_SETTINGS,
    )
    await database.open()
    turns = asyncio.Semaphore(INVARIANTS_AT_ONCE)
    try:
        async with database.transaction() as conn:
            if tenant_id is not None:
                await _require_tenant(conn, tenant_id)
            parameters = {"tenant_id": tenant_id, "since": since, **bounds, **asdict(await find_horizon(conn))}
            moment = await _export_moment(conn)

            async def run(invariant: Invariant) -> Result:
                async with turns, database.transaction(snapshot=moment) as conn:
                    return await examine(conn, invariant, _condition(invariant, tenant_id, since), parameters)

            tasks = [asyncio.create_task(run(invariant)) for invariant in invariants]
            try:
                for task in tasks:
                    yield await task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await database.close()


async def examine(
    conn: Connection,
    invariant: Invariant,
    condition: str,
    parameters: Mapping[str, Any],
    *,
    limit: int = FAILURES_SHOWN,
) -> Result:
    """Examines the subject's rows that meet the condition, with up to `limit` failures.

    The transaction must be REPEATABLE READ, so that what is counted is what is shown.
    """
    try:
        async with conn.transaction():
            cursor = await conn.execute(invariant.counting(condition).encode(), parameters)
            row = await cursor.fetchone()
            assert row is not None
            examined, broken = row
            failures: list[Mapping[str, Any]] = []
            if broken:
                cursor = await conn.execute(invariant.showing(condition).encode(), {**parameters, "limit": limit})
                failures = [_without_mark(found) for (found,) in await cursor.fetchall()]
    except psycopg.DataError as error:
        # A body that is not JSON, for example. PostgreSQL does not say which row it is; the invariant is broken.
        return Result(invariant, 0, 1, [{"unreadable": str(error).partition("\n")[0]}])
    return Result(invariant, examined, broken, failures)


def _condition(invariant: Invariant, tenant_id: str | None, since: datetime | None) -> str:
    conditions = ["true"]
    if tenant_id is not None and invariant.subject.is_of_tenants:
        conditions.append("tenant_id = %(tenant_id)s")
    if since is not None:
        conditions.append(invariant.subject.since)
    return " AND ".join(conditions)


def _without_mark(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "broken"}


async def _require_tenant(conn: Connection, tenant_id: str) -> None:
    cursor = await conn.execute("SELECT FROM tenants WHERE tenant_id = %s", [tenant_id])
    if await cursor.fetchone() is None:
        raise UnknownTenant


async def _export_moment(conn: Connection) -> str:
    cursor = await conn.execute("SELECT pg_export_snapshot()")
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])
