"""Migrations beside a version that serves: they wait briefly or not at all, and are applied whole or not at all."""

import shutil
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import command

from payments_ledger.postgres.database import driver_url
from payments_ledger.schema import migrate as migrations
from payments_ledger.schema.migrate import (
    MigrationGaveUp,
    MigrationsDisagree,
    make_roles_of,
    migrate,
    missing_migrations,
    newest_version,
)
from tests.services import PostgresServer


@pytest.fixture
def at_first(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with the first migration alone."""
    url = postgres.create_database(f"at_first_{uuid4().hex}")
    upgrade = command.upgrade
    with monkeypatch.context() as only:
        only.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        migrate(url)
    return url


def test_a_migration_behind_a_long_transaction_gives_up_says_why_and_changes_nothing(
    at_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS_MAX", 0.2)
    monkeypatch.setattr(migrations, "LOCK_ATTEMPTS_MAX", 2)
    monkeypatch.setattr(migrations, "PAUSE_SECONDS", 0.1)
    before = missing_migrations(at_first)
    with psycopg.connect(driver_url(at_first), application_name="a long report") as reader:
        reader.execute("SELECT FROM payment_intents")
        with pytest.raises(MigrationGaveUp, match=r"2 times for 0.2 s.*Nothing was changed.*a long report"):
            migrate(at_first)
        assert missing_migrations(at_first) == before
        # Nor does anybody wait for it any more.
        with psycopg.connect(driver_url(at_first), options="-c lock_timeout=1000") as other:
            other.execute("SELECT FROM payment_intents")
    migrate(at_first)
    assert missing_migrations(at_first) == []


def test_a_migration_gets_its_turn_as_soon_as_the_transaction_before_it_ends(
    at_first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = psycopg.connect(driver_url(at_first))
    reader.execute("SELECT FROM payment_intents")
    monkeypatch.setattr(migrations, "LOCK_SECONDS_MAX", 0.2)
    # The pause between two attempts is when the reader ends.
    monkeypatch.setattr("payments_ledger.schema.migrate.time.sleep", lambda _: reader.close())
    migrate(at_first)
    assert missing_migrations(at_first) == []


def test_what_is_missing_is_told_in_the_order_in_which_it_would_be_applied(at_first: str) -> None:
    versions = [migration.version for migration in missing_migrations(at_first)]
    assert versions == sorted(versions)
    assert versions[0] == "0002"
    assert versions[-1] == newest_version()


def test_two_newest_migrations_are_refused_before_anything_is_done(
    at_first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(migrations._migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "other.py").write_text('"""Other."""\n\nrevision = "other"\ndown_revision = "0002"\n')
    monkeypatch.setattr(migrations, "_migrations_folder", lambda: folder)
    with pytest.raises(MigrationsDisagree, match="one newest migration"):
        migrate(at_first)


def test_a_database_that_is_ahead_of_the_program_is_left_alone(at_first: str) -> None:
    with psycopg.connect(driver_url(at_first)) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationsDisagree, match="at migration 9999"):
        migrate(at_first)


def test_the_roles_that_a_dump_names_can_be_made_before_it_is_restored(at_first: str) -> None:
    name = f"elsewhere_{uuid4().hex}"
    make_roles_of(at_first, name)
    make_roles_of(at_first, name)
    with psycopg.connect(driver_url(at_first)) as conn:
        for kind in ("runtime", "relay", "auditor"):
            conn.execute("SELECT set_config('role', %s, false)", [f"{name}_{kind}"])


def test_roles_of_somebody_else_keep_what_they_were_given(at_first: str) -> None:
    """They end as ours do, but are not three of a name."""
    other = f"reports_{uuid4().hex}_runtime"
    with psycopg.connect(driver_url(at_first)) as conn:
        conn.execute(f"CREATE ROLE {other}")
        conn.execute(f"GRANT SELECT ON payment_intents TO {other}")
    migrate(at_first)
    with psycopg.connect(driver_url(at_first)) as conn:
        assert conn.execute("SELECT has_table_privilege(%s, 'payment_intents', 'SELECT')", [other]).fetchone() == (
            True,
        )
