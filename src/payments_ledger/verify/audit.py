"""Running the checks over one consistent view of the database, as a role that sees everything and writes nothing."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from payments_ledger.platform.postgres import Database, auditor_role
from payments_ledger.verify.checks import CHECKS, Check

# A payment is settled within a second; a quarter of an hour leaves time for a broker's restart.
AUTHORIZED_SECONDS_MAX = 900

# Every check sees the same moment, however long the audit takes and whatever happens meanwhile.
SERVER_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "statement_timeout": "30min",
    "work_mem": "256MB",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found: `broken` of `examined`, and the first of them."""

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
    """The result of each check, as it is found. Raises DatabaseAway or SchemaMissing."""
    parameters = {"tenant_id": tenant_id, "since": since, "authorized_seconds_max": authorized_seconds_max}
    database = Database(database_url, role=auditor_role(database_url), pool_size_max=2, server_settings=SERVER_SETTINGS)
    await database.open()
    try:
        async with database.transaction() as conn:
            for check in CHECKS:
                cursor = await conn.cursor(row_factory=dict_row).execute(check.query, parameters)
                row = await cursor.fetchone()
                assert row is not None
                yield Result(check, row["examined"], row["broken"], row["failures"])
    finally:
        await database.close()
