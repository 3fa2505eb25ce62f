"""The operator's commands as the person on call types them: what they print, and their exit statuses."""

import json
import os
import pwd
import signal
import subprocess
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from typer.testing import Result

from payments_ledger.postgres.database import driver_url
from payments_ledger.postgres.roles import relay_role
from payments_ledger.schema.migrate import newest_version
from tests.acceptance.client import TENANT, confirm, create, logged_in, settled
from tests.acceptance.conftest import PROGRAM, Engine, command, eventually, free_port

CANNOT = 3


def rows(done: Result) -> list[dict[str, Any]]:
    """What --json printed: an object a line."""
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def token_status(engine: Engine, email: str, password: str, tenant: str) -> int:
    credentials = {"email": email, "password": password, "tenantId": tenant}
    return httpx.post(f"{engine.base_url}/v1/auth/token", json=credentials).status_code


def test_status_shows_a_whole_engine_and_says_so_by_its_exit_status(engine: Engine) -> None:
    with engine.api(), engine.worker(), logged_in(engine) as client:
        payment_id = create(client).json()["id"]
        confirm(client, payment_id).raise_for_status()
        eventually(lambda: settled(client, payment_id))
        found = eventually(lambda: rows(command(engine, "status", "--json"))[0])
        shown = command(engine, "status")
    assert (found["ok"], found["faults"], found["schema"]) == (True, [], newest_version())
    assert {service["name"] for service in found["services"]} == {
        "postgresql",
        "schema",
        "redis",
        "rabbitmq",
        "worker",
    }
    assert all(service["version"] for service in found["services"] if service["name"] != "worker")
    assert payment_id in {settlement["payment_id"] for settlement in found["settlements"]}
    [queue] = found["queues"]
    assert (queue["name"], queue["consumers"]) == ("payments.events", 1)
    assert shown.exit_code == 0
    assert payment_id in shown.stdout


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({}, "No worker consumes payments.events."),
        ({"DATABASE_URL": "postgresql://app:app@127.0.0.1:{port}/app"}, "Cannot reach PostgreSQL"),
        ({"REDIS_URL": "redis://127.0.0.1:{port}/0"}, "Cannot reach Redis"),
        ({"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:{port}/"}, "Cannot reach RabbitMQ"),
    ],
)
def test_status_names_what_is_down_and_exits_with_one(engine: Engine, variables: dict[str, str], fault: str) -> None:
    port = str(free_port())
    done = command(engine, "status", **{name: url.replace("{port}", port) for name, url in variables.items()})
    assert done.exit_code == 1
    assert fault in done.stdout


def test_tail_follows_a_payment_and_ctrl_c_ends_it_cleanly(engine: Engine) -> None:
    with subprocess.Popen(
        [PROGRAM, "tail", "--tenant", TENANT, "--type", "payment.settled", "--since", "2026-01-01", "--json"],
        env=engine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        try:
            with engine.api(), engine.worker(), logged_in(engine) as client:
                payment_id = create(client).json()["id"]
                confirm(client, payment_id).raise_for_status()
                for line in tail.stdout:
                    event = json.loads(line)
                    assert (event["tenant_id"], event["event_type"]) == (TENANT, "payment.settled")
                    if event["aggregate_id"] == payment_id:
                        break
            tail.send_signal(signal.SIGINT)
            _, complaints = tail.communicate(timeout=20)
            assert (tail.returncode, "Traceback" in complaints) == (0, False), complaints
        finally:
            tail.kill()


def test_a_user_who_is_added_can_log_in_until_they_are_disabled(engine: Engine) -> None:
    rows(command(engine, "tenants", "add", "acme", "--name", "Acme", "--json"))
    arguments = ("users", "add", "new@acme", "--tenant", "acme", "--role", "ops", "--json")
    [user] = rows(command(engine, *arguments, typed="a long password\n"))
    assert UUID(user["id"])
    with engine.api():
        engine.wait_until_ready()
        assert token_status(engine, "new@acme", "a long password", "acme") == 200
        rows(command(engine, "users", "disable", "new@acme", "--tenant", "acme", "--json"))
        assert token_status(engine, "new@acme", "a long password", "acme") == 401
        rows(command(engine, "users", "enable", "new@acme", "--tenant", "acme", "--json"))
        assert token_status(engine, "new@acme", "a long password", "acme") == 200
    listed = command(engine, "users", "roles", "new@acme", "sales", "--tenant", "acme")
    assert "new@acme  sales" in listed.stdout
    assert "new@acme" in command(engine, "users", "list", "--tenant", "acme").stdout
    assert rows(command(engine, "tenants", "suspend", "acme", "--json"))[0]["suspended_at"]
    assert rows(command(engine, "tenants", "resume", "acme", "--json"))[0]["suspended_at"] is None
    assert "acme" in {tenant["id"] for tenant in rows(command(engine, "tenants", "list", "--json"))}


def test_an_operator_ends_the_rest_of_an_e_mail_address_and_is_told_what_was_forgotten(engine: Engine) -> None:
    rows(command(engine, "tenants", "add", "locked", "--json"))
    arguments = ("users", "add", "Rests@locked", "--tenant", "locked", "--role", "ops", "--json")
    rows(command(engine, *arguments, typed="a long password\n"))
    with engine.api():
        engine.wait_until_ready()
        statuses = [token_status(engine, "rests@locked", "wrong", "locked") for _ in range(11)]
        assert statuses == [401] * 10 + [429]
        assert token_status(engine, "rests@locked", "a long password", "locked") == 429
        said = command(engine, "users", "unlock", "RESTS@locked", "--tenant", "locked")
        assert said.exit_code == 0, said.stderr
        assert "12 failures in a row (networks: 1), 12 failures in this hour" in said.stdout
        assert token_status(engine, "rests@locked", "a long password", "locked") == 200
        again = command(engine, "users", "unlock", "rests@locked")
        assert (again.exit_code, "not locked" in again.stdout) == (0, True)
        [found] = rows(command(engine, "users", "unlock", "rests@locked", "--json"))
        assert found == {
            "email": "rests@locked",
            "tenants": ["locked"],
            "networks": 0,
            "in_rows": 0,
            "in_the_hour": 0,
        }
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', 'locked', false)")
        audited = conn.execute("SELECT target, principal FROM audit_log WHERE action = 'user.unlock'").fetchall()
    assert audited == [("rests@locked", f"cli:{pwd.getpwuid(os.getuid()).pw_name}")] * 3


def test_what_the_environment_says_of_the_operator_is_not_believed(engine: Engine) -> None:
    claimed = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "somebody-else")
    rows(command(engine, "tenants", "add", "claimed", "--json", **claimed))
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', 'claimed', false)")
        principals = conn.execute("SELECT DISTINCT principal FROM audit_log").fetchall()
    assert principals == [(f"cli:{pwd.getpwuid(os.getuid()).pw_name}",)]


@pytest.mark.parametrize(
    ("given", "assigned"),
    [
        (("ops",), ["ops"]),
        (("--role", "ops"), ["ops"]),
        (("ops", "sales"), ["ops", "sales"]),
        (("--role", "ops", "--role", "sales"), ["ops", "sales"]),
        (("sales", "--role", "ops"), ["ops", "sales"]),
    ],
)
def test_users_are_added_with_roles_as_they_are_given_roles(
    engine: Engine, given: tuple[str, ...], assigned: list[str]
) -> None:
    email = f"{uuid4()}@demo"
    [added] = rows(command(engine, "users", "add", email, *given, "--tenant", TENANT, "--json", typed="long enough\n"))
    assert added["roles"] == assigned
    assert rows(command(engine, "users", "roles", email, "--tenant", TENANT, "--json"))[0]["roles"] == []
    assert rows(command(engine, "users", "roles", email, *given, "--tenant", TENANT, "--json"))[0]["roles"] == assigned


@pytest.mark.parametrize(
    ("arguments", "typed", "status", "said"),
    [
        (["users", "add", "a@b", "--tenant", TENANT, "--role", "ops"], "short\n", 1, "8 characters"),
        (["users", "add", "a@b", "--tenant", TENANT, "--role", "boss"], "long enough\n", 1, "no role boss"),
        (["users", "add", "ops@demo", "--tenant", TENANT, "--role", "ops"], "long enough\n", 1, "already"),
        (["users", "add", "a@b", "--tenant", TENANT], "long enough\n", 2, "needs a role"),
        (["users", "add", "a@b", "ops", "boss", "--tenant", TENANT], "long enough\n", 1, "no role boss"),
        (["users", "disable", "nobody@demo", "--tenant", TENANT], "", 1, "users list"),
        (["users", "unlock", "nobody@demo"], "", 1, "No tenant has a user nobody@demo."),
        (["users", "unlock", "ops@demo", "--tenant", "*"], "", 1, "The tenant * has no user ops@demo."),
        (["tenants", "suspend", "nobody"], "", 1, "tenants list"),
        (["tenants", "add", "a b"], "", 2, "letters"),
        (["outbox", "retry"], "", 2, "--all-buried"),
        (["outbox", "retry", "00000000-0000-7000-8000-000000000000"], "", 1, "outbox list"),
        (["dead-letters", "replay"], "", 2, "--all"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do(
    engine: Engine, arguments: list[str], typed: str, status: int, said: str
) -> None:
    done = command(engine, *arguments, typed=typed)
    assert done.exit_code == status
    assert said in done.stderr


@pytest.mark.parametrize(
    ("redis_url", "said"), [("memory://", "Restart the API"), ("redis://127.0.0.1:1/0", "Cannot reach Redis")]
)
def test_without_a_redis_that_answers_nobody_is_unlocked(engine: Engine, redis_url: str, said: str) -> None:
    done = command(engine, "users", "unlock", "ops@demo", "--tenant", TENANT, REDIS_URL=redis_url)
    assert (done.exit_code, said in done.stderr) == (CANNOT, True), done.stderr


def test_without_a_broker_buried_events_are_the_dead_letters(engine: Engine) -> None:
    in_memory = {"RABBITMQ_URL": "memory://"}
    with engine.api(), logged_in(engine) as client:
        payment_id = create(client, "BURIED").json()["id"]
    with psycopg.connect(driver_url(engine.environment["DATABASE_URL"])) as conn:
        conn.execute("SELECT set_config('role', %s, true)", [relay_role(engine.environment["DATABASE_URL"])])
        conn.execute(
            "UPDATE outbox_events SET buried_at = now(), last_error = 'refused' WHERE aggregate_id = %s", [payment_id]
        )
    [letter] = rows(command(engine, "dead-letters", "list", "--json", **in_memory))
    assert (letter["reason"], letter["queue"], payment_id in letter["body"]) == ("refused", "outbox_events", True)
    [buried] = rows(command(engine, "outbox", "list", "--state", "buried", "--json"))
    assert buried["id"] == letter["id"]
    assert "refused" in command(engine, "dead-letters", "show", letter["id"], **in_memory).stdout
    drop = command(engine, "dead-letters", "drop", letter["id"], **in_memory)
    assert (drop.exit_code, "replay" in drop.stderr) == (CANNOT, True)
    assert "Replayed: 1." in command(engine, "dead-letters", "replay", letter["id"], **in_memory).stdout
    assert rows(command(engine, "dead-letters", "list", "--json", **in_memory)) == []
    assert letter["id"] in command(engine, "outbox", "list").stdout


def test_help_comes_without_what_only_servers_need() -> None:
    """A program that takes a second to say how it is used is not asked."""
    script = "import sys, payments_ledger.cli; print([m for m in sys.modules if m.partition('.')[0] in sys.argv])"
    heavy = ["sqlalchemy", "alembic", "fastapi", "aio_pika", "psycopg", "pydantic", "opentelemetry"]
    python = PROGRAM.with_name("python")
    assert subprocess.run([python, "-c", script, *heavy], capture_output=True, text=True).stdout == "[]\n"
