"""The whole audit: every check over one consistent view of the database, several side by side, changing nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from payments_ledger.postgres.database import Connection, Database
from payments_ledger.postgres.roles import auditor_role
from payments_ledger.tenants.queries import require_tenant
from payments_ledger.verify.checks import CHECKS, FAILURES_SHOWN, Check
from payments_ledger.verify.horizon import find_horizon

# A payment is settled within a second; a quarter of an hour leaves time for a broker's restart.
AUTHORIZED_SECONDS_MAX = 900

# Each check reads other tables in another way, so that two of them keep two cores busy where one would wait.
CHECKS_AT_ONCE = 2

# Every check sees the same moment, however long the audit takes and whatever happens meanwhile.
SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "30min",
    # The connection that holds the moment for the others has nothing to do itself.
    "idle_in_transaction_session_timeout": "0",
    # A million payments then fit into the hash tables of two checks, which take less than 2 GB.
    "work_mem": "256MB",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found: `broken` of `examined`, and the first of them, each with what was expected."""

    check: Check
    examined: int
    broken: int
    failures: list[Mapping[str, Any]]

    @property
    def ok(self) -> bool:
        return self.broken == 0


async def audit(
    database_url: str,
    *,
    tenant_id: str | None = None,
    since: datetime | None = None,
    authorized_seconds_max: int = AUTHORIZED_SECONDS_MAX,
) -> AsyncIterator[Result]:
    """The result of each check, in the catalogue's order, as it is found.

    `since` leaves out the rows that were last written before; `tenant_id` those of other tenants. Raises UnknownTenant,
    DatabaseUnavailable or SchemaMissing.
    """
    database = Database(
        database_url,
        role=auditor_role(database_url),
        pool_size_max=CHECKS_AT_ONCE + 1,
        server_settings=SERVER_SETTINGS,
    )
    await database.open()
    turns = asyncio.Semaphore(CHECKS_AT_ONCE)
    try:
        async with database.transaction() as conn:
            if tenant_id is not None:
                await require_tenant(conn, tenant_id)
            parameters = {"tenant_id": tenant_id, "since": since, "authorized_seconds_max": authorized_seconds_max}
            parameters |= asdict(await find_horizon(conn))
            moment = await _export_moment(conn)

            async def run(check: Check) -> Result:
                async with turns, database.transaction(snapshot=moment) as conn:
                    return await look(conn, check, _picked(check, tenant_id, since), parameters)

            tasks = [asyncio.create_task(run(check)) for check in CHECKS]
            try:
                for task in tasks:
                    yield await task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await database.close()


async def look(
    conn: Connection, check: Check, condition: str, parameters: Mapping[str, Any], *, limit: int = FAILURES_SHOWN
) -> Result:
    """One check of the subject's rows that meet the condition, with up to `limit` failures.

    The transaction must be REPEATABLE READ, so that what is counted is what is shown.
    """
    try:
        async with conn.transaction():
            cursor = await conn.execute(check.counting(condition).encode(), parameters)
            row = await cursor.fetchone()
            assert row is not None
            examined, broken = row
            failures: list[Mapping[str, Any]] = []
            if broken:
                cursor = await conn.execute(check.showing(condition).encode(), {**parameters, "limit": limit})
                failures = [_without_mark(found) for (found,) in await cursor.fetchall()]
    except psycopg.DataError as error:
        # A body that is no JSON, say: nobody can tell which row it is, but the books do not hold.
        return Result(check, 0, 1, [{"unreadable": str(error).partition("\n")[0]}])
    return Result(check, examined, broken, failures)


def _picked(check: Check, tenant_id: str | None, since: datetime | None) -> str:
    conditions = ["true"]
    if tenant_id is not None and check.subject.is_of_tenants:
        conditions.append("tenant_id = %(tenant_id)s")
    if since is not None:
        conditions.append(check.subject.since)
    return " AND ".join(conditions)


def _without_mark(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "broken"}


async def _export_moment(conn: Connection) -> str:
    cursor = await conn.execute("SELECT pg_export_snapshot()")
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])
