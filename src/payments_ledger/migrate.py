"""Brings the schema up to date: three roles that own nothing, then the migrations, one process at a time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, create_engine, text

from payments_ledger.platform.postgres import auditor_role, relay_role, runtime_role

# Any number, as long as nobody else on the server uses it: two starts at once take turns by it.
MIGRATION_LOCK = 7_203_811_406


def migrate(database_url: str) -> None:
    """Applies what is missing; can be repeated and started twice at once. Raises sqlalchemy.exc.OperationalError."""
    roles = {
        "runtime_role": runtime_role(database_url),
        "relay_role": relay_role(database_url),
        "auditor_role": auditor_role(database_url),
    }
    config = Config()
    config.set_main_option("script_location", str(_migrations_folder()))
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            for role in roles.values():
                _ensure_role(connection, role)
            config.attributes.update(connection=connection, roles=roles)
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def newest_version() -> str:
    """The migration that this program needs to have been applied."""
    newest = ScriptDirectory(str(_migrations_folder())).get_current_head()
    assert newest is not None
    return newest


def _ensure_role(connection: Connection, role: str) -> None:
    """Makes the role if need be, and lets the owner take it by SET ROLE without inheriting anything from it."""
    exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    name = sql.Identifier(role).as_string()
    if not exists:
        connection.exec_driver_sql(f"CREATE ROLE {name} NOLOGIN NOINHERIT NOBYPASSRLS")
        connection.exec_driver_sql(f"GRANT {name} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")


def _migrations_folder() -> Path:
    """In a checkout beside src/, in an installed package inside of it."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "migrations"
