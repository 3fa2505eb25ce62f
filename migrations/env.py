"""Runs the migrations as one transaction, one process at a time, on the connection that `migrate` hands in."""

from pathlib import Path
from typing import cast

from alembic import context
from psycopg import Connection, sql

connection = context.config.attributes["connection"]
roles: dict[str, str] = context.config.attributes["roles"]


def run_sql(path: Path) -> None:
    """Runs a file of plain SQL in which :runtime_role, :relay_role, :auditor_role stand for the roles' quoted names."""
    driver = cast("Connection", connection.connection.driver_connection)
    text = path.read_text(encoding="utf-8")
    for placeholder, role in roles.items():
        text = text.replace(f":{placeholder}", sql.Identifier(role).as_string(driver))
    driver.execute(text.encode())


context.configure(connection=connection, run_sql=run_sql)
with context.begin_transaction():
    context.run_migrations()
