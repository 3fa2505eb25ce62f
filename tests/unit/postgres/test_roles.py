"""Roles are named after the database, however its URL writes that name."""

import pytest

from payments_ledger.postgres.roles import auditor_role, relay_role, runtime_role


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("postgresql+psycopg://app:app@localhost:5432/ledger", "ledger"),
        ("postgresql+psycopg://app@/ledger?host=/run/postgresql&pgbouncer=true", "ledger"),
        ("postgresql://localhost/my%20ledger", "my ledger"),
        ("postgresql://localhost", "postgres"),
    ],
)
def test_a_role_is_named_after_the_database(url: str, database: str) -> None:
    names = [role(url) for role in (runtime_role, relay_role, auditor_role)]
    assert names == [f"{database}_runtime", f"{database}_relay", f"{database}_auditor"]
