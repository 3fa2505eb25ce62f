"""Brings the schema up to date: roles that own nothing, the migrations, one process at a time, and large indexes."""

import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from payments_ledger.errors import Conflict
from payments_ledger.postgres.database import driver_url
from payments_ledger.postgres.roles import auditor_role, relay_role, runtime_role
from payments_ledger.schema.indexes import Index, make_indexes, unfinished

# Any number that nothing else on the server uses: concurrent starts take turns by it.
MIGRATION_LOCK = 7_203_811_406

# A migration that waits for a table's lock holds up everybody who comes after it, so it must not wait for long. Then
# all of it is undone, those in the queue go on, and it tries again.
LOCK_SECONDS_MAX = 2.0
LOCK_ATTEMPTS_MAX = 10
PAUSE_SECONDS = 3.0

_STOOD_IN_THE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class MigrationGaveUp(Conflict):
    """A migration could not get its locks. Nothing was changed."""


class MigrationsDisagree(Conflict):
    """The migrations of this program and those of the database do not fit together. Nothing was changed."""


@dataclass(frozen=True)
class Missing:
    """One migration that is still to be applied, or an index of one that is still to be made."""

    version: str
    title: str


def migrate(database_url: str) -> list[Missing]:
    """Applies what is missing, all of it or nothing, and returns it; can be repeated and started twice at once.

    Then makes the indexes that the migrations name, while others write; if interrupted, the next start goes on.
    Also gives this database's roles what the roles of another name have in it, as after a restoration under a new
    name. Raises MigrationGaveUp, MigrationsDisagree or sqlalchemy.exc.OperationalError.
    """
    engine = _engine(database_url)
    try:
        _known(engine)
        attempt = 1
        while True:
            try:
                applied = _apply(engine, _roles_of(database_url))
                make_indexes(engine, _indexes(_known(engine)))
                return applied
            except (OperationalError, *_STOOD_IN_THE_WAY) as error:
                if not isinstance(getattr(error, "orig", error), _STOOD_IN_THE_WAY):
                    raise
                if attempt == LOCK_ATTEMPTS_MAX:
                    raise MigrationGaveUp(_why_it_waits(engine)) from error
            attempt += 1
            time.sleep(PAUSE_SECONDS)
    finally:
        engine.dispose()


def _apply(engine: Engine, roles: dict[str, str]) -> list[Missing]:
    """One attempt, in one transaction; returns what it applied."""
    config = Config()
    config.set_main_option("script_location", str(_migrations_folder()))
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(LOCK_SECONDS_MAX * 1000)}")
        for role in roles.values():
            _ensure_role(connection, role)
        _take_over(connection, roles)
        # Read under the lock: another start may have applied some of it meanwhile.
        missing = _missing(MigrationContext.configure(connection).get_current_revision())
        config.attributes.update(connection=connection, roles=roles)
        command.upgrade(config, "head")
        return missing


def missing_migrations(database_url: str) -> list[Missing]:
    """What `migrate` would apply, in its order. Changes nothing; raises as `migrate` does."""
    engine = _engine(database_url)
    try:
        applied = _known(engine)
        indexes = [Missing(index.version, f"The index {index.name}") for index in unfinished(engine, _indexes(applied))]
        return indexes + _missing(applied)
    finally:
        engine.dispose()


def make_roles_of(database_url: str, name: str) -> None:
    """Makes the roles of a database with another name on this server: a dump of it names them."""
    roles = _roles_of(urlsplit(database_url)._replace(path=f"/{quote(name)}").geturl())
    engine = _engine(database_url)
    try:
        with engine.begin() as connection:
            for role in roles.values():
                _ensure_role(connection, role)
    finally:
        engine.dispose()


def _missing(applied: str | None) -> list[Missing]:
    """What comes after the version `applied`, in the order of its application."""
    newest_first = _scripts().iterate_revisions(newest_version(), applied or "base")
    return [Missing(script.revision, script.doc) for script in reversed(list(newest_first))]


def _indexes(applied: str | None) -> list[Index]:
    """What the migrations up to the version `applied` name as INDEXES, in their order."""
    scripts = reversed(list(_scripts().iterate_revisions(applied, "base"))) if applied else ()
    return [
        Index(name, definition, script.revision)
        for script in scripts
        for name, definition in getattr(script.module, "INDEXES", {}).items()
    ]


def newest_version() -> str:
    """The migration that this program needs to have been applied. Raises MigrationsDisagree."""
    heads = _scripts().get_heads()
    if len(heads) != 1:
        raise MigrationsDisagree(f"There must be one newest migration, but these are: {', '.join(sorted(heads))}")
    return heads[0]


def _roles_of(url: str) -> dict[str, str]:
    return {"runtime_role": runtime_role(url), "relay_role": relay_role(url), "auditor_role": auditor_role(url)}


def _engine(database_url: str) -> Engine:
    return create_engine(driver_url(database_url).replace("postgresql://", "postgresql+psycopg://", 1))


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_migrations_folder()))


def _known(engine: Engine) -> str | None:
    """The version that the database is at, None before the first; raises MigrationsDisagree if we do not know it."""
    newest = newest_version()
    with engine.connect() as connection:
        applied = MigrationContext.configure(connection).get_current_revision()
    if applied is not None and applied not in {script.revision for script in _scripts().walk_revisions()}:
        raise MigrationsDisagree(
            f"The database is at migration {applied}, and this program knows none after {newest}. Nothing was changed."
        )
    return applied


def _ensure_role(connection: Connection, role: str) -> None:
    """Makes the role if need be, and lets the owner take it by SET ROLE without inheriting anything from it."""
    exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    name = sql.Identifier(role).as_string()
    if not exists:
        connection.exec_driver_sql(f"CREATE ROLE {name} NOLOGIN NOINHERIT NOBYPASSRLS")
        connection.exec_driver_sql(f"GRANT {name} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")


# Each statement that gives our roles what the roles of another database's name have here, and takes it from those. A
# dump carries privileges and policies by the names of roles, so a restored or renamed database has them under the old
# ones. Such a name is one that stands before _runtime, _relay and _auditor alike.
_TAKE_OVER = """
    WITH given AS (
        SELECT acl.grantee, acl.privilege_type AS privilege, '' AS columns, class.oid::regclass::text AS object
        FROM pg_class AS class, aclexplode(class.relacl) AS acl
        WHERE class.relnamespace = 'public'::regnamespace AND class.relkind IN ('r', 'p', 'v', 'm')
        UNION ALL
        SELECT acl.grantee, acl.privilege_type, format(' (%%I)', attribute.attname), class.oid::regclass::text
        FROM pg_class AS class
        JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid,
             aclexplode(attribute.attacl) AS acl
        WHERE class.relnamespace = 'public'::regnamespace
        UNION ALL
        SELECT acl.grantee, acl.privilege_type, '', 'SEQUENCE ' || class.oid::regclass::text
        FROM pg_class AS class, aclexplode(class.relacl) AS acl
        WHERE class.relnamespace = 'public'::regnamespace AND class.relkind = 'S'
        UNION ALL
        SELECT acl.grantee, acl.privilege_type, '', 'FUNCTION ' || proc.oid::regprocedure::text
        FROM pg_proc AS proc, aclexplode(proc.proacl) AS acl
        WHERE proc.pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT acl.grantee, acl.privilege_type, '', 'SCHEMA public'
        FROM pg_namespace, aclexplode(nspacl) AS acl
        WHERE nspname = 'public'
    ),
    named AS (
        SELECT role.oid, role.rolname AS role, kind.name AS kind,
               left(role.rolname, -length(kind.name) - 1) AS database
        FROM pg_roles AS role
        JOIN (VALUES ('runtime'), ('relay'), ('auditor')) AS kind (name) ON role.rolname LIKE '%%\\_' || kind.name
        WHERE role.oid IN (SELECT grantee FROM given)
    ),
    former AS (
        SELECT named.oid, named.role, ours.role AS successor
        FROM named
        JOIN (VALUES ('runtime', %(runtime_role)s), ('relay', %(relay_role)s), ('auditor', %(auditor_role)s))
             AS ours (kind, role) USING (kind)
        WHERE named.role <> ours.role
          AND (SELECT count(*) FROM named AS same WHERE same.database = named.database) = 3
    )
    SELECT format('GRANT %%s%%s ON %%s TO %%I', privilege, columns, object, successor) AS statement
    FROM given JOIN former ON former.oid = given.grantee
    UNION ALL
    SELECT format('REVOKE %%s%%s ON %%s FROM %%I', privilege, columns, object, role)
    FROM given JOIN former ON former.oid = given.grantee
    UNION ALL
    SELECT format('ALTER POLICY %%I ON %%s TO %%I', polname, polrelid::regclass, successor)
    FROM pg_policy JOIN former ON polroles = ARRAY[former.oid]
"""


def _take_over(connection: Connection, roles: dict[str, str]) -> None:
    for (statement,) in connection.exec_driver_sql(_TAKE_OVER, roles).all():
        connection.exec_driver_sql(statement)


def _why_it_waits(engine: Engine) -> str:
    """For the operator: that nothing was changed, and whose transaction is in the way."""
    with engine.connect() as connection:
        oldest = connection.execute(
            text(
                """
                SELECT pid, coalesce(nullif(application_name, ''), 'unnamed'), usename,
                       extract(epoch FROM clock_timestamp() - xact_start)::integer
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
                ORDER BY xact_start
                LIMIT 1
                """
            )
        ).first()
    summary = (
        f"A migration waited for a lock, {LOCK_ATTEMPTS_MAX} times for {LOCK_SECONDS_MAX:g} s, and gave up. "
        "Nothing was changed."
    )
    if oldest is None:
        return summary
    pid, application, user, seconds = oldest
    return f"{summary} The oldest transaction is {seconds} s old: process {pid} ({application}, user {user})."


def _migrations_folder() -> Path:
    """In a checkout beside src/, in an installed package inside of it."""
    packaged = Path(__file__).parents[1] / "migrations"
    return packaged if packaged.exists() else Path(__file__).parents[3] / "migrations"
