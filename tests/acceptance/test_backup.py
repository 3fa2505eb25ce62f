"""Backup and restoration as docs/how-to/backup.md has them: a dump under load becomes a new installation."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from payments_ledger.postgres.database import driver_url
from payments_ledger.postgres.roles import runtime_role
from tests.acceptance.client import confirm, create, logged_in, settled
from tests.acceptance.conftest import Engine, eventually
from tests.services import PostgresServer

PAYMENTS_BEFORE_THE_DUMP = 20


def run(program: Path, *arguments: object) -> None:
    done = subprocess.run(
        [program, *map(str, arguments)], env={"PATH": os.defpath}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@contextmanager
def under_load(engine: Engine) -> Iterator[list[str]]:
    """Pays all the while; the list of what is paid grows."""
    paid: list[str] = []
    enough = threading.Event()

    def pay() -> None:
        with logged_in(engine) as client:
            while not enough.is_set():
                payment_id = create(client).raise_for_status().json()["id"]
                confirm(client, payment_id).raise_for_status()
                paid.append(payment_id)

    payer = threading.Thread(target=pay)
    payer.start()
    try:
        eventually(lambda: len(paid) > PAYMENTS_BEFORE_THE_DUMP)
        yield paid
    finally:
        enough.set()
        payer.join()


def test_a_dump_of_a_living_database_is_restored_under_another_name_and_serves(
    engine: Engine, postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.create_backup_role("backup")
    living, dump = engine.environment["DATABASE_URL"], tmp_path / "dump"
    with engine.api(), engine.worker(), under_load(engine) as paid:
        before = paid[-1]
        as_backup = driver_url(living).replace("app:app@", "backup@")
        run(postgres.program("pg_dump"), "--format=custom", f"--file={dump}", f"--dbname={as_backup}")
        during = len(paid)
        eventually(lambda: len(paid) > during)

    url = postgres.create_database("restored")
    run(postgres.program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={driver_url(url)}", dump)
    restored = replace(engine, environment=engine.environment | {"DATABASE_URL": url})
    restored.run("migrate")
    with psycopg.connect(driver_url(url)) as conn:
        # The roles of the other database have nothing here any more.
        conn.execute("SELECT set_config('role', %s, true)", [runtime_role(living)])
        assert conn.execute("SELECT has_table_privilege('payment_intents', 'SELECT')").fetchone() == (False,)
    restored.run("verify")
    with restored.api(), restored.worker(), logged_in(restored) as client:
        assert client.get(f"/v1/payment-intents/{before}").is_success
        payment_id = create(client).raise_for_status().json()["id"]
        confirm(client, payment_id).raise_for_status()
        eventually(lambda: settled(client, payment_id))
    restored.run("verify")
