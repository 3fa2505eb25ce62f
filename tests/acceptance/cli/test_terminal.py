"""What the command line says when something is not as it should be: what is wrong, and what to do."""

import json
import os
import socket
import subprocess
from functools import partial
from importlib.metadata import version

import httpx
import pytest

from payments_ledger.cli import dead_letters as dead_letters_cli
from payments_ledger.cli import verify
from payments_ledger.operations import dead_letters
from payments_ledger.payments import invariants
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.acceptance.conftest import command as run
from tests.services import PostgresServer, RabbitmqServer

# The exit status of what is away, not set up or not permitted, as against what was refused (1).
CANNOT = 3
REFUSED = 1


def failure(engine: Engine, *arguments: str, **variables: str) -> str:
    """What a command that fails prints for its reader."""
    done = run(engine, *arguments, **variables)
    assert done.exit_code == CANNOT
    return done.stderr


@pytest.mark.parametrize("command", ["migrate", "seed", "verify", "outbox list", "tail", "tenants list"])
def test_a_database_that_is_not_there_is_named(engine: Engine, command: str) -> None:
    url = f"postgresql+psycopg://app:app@127.0.0.1:{free_port()}/app"
    assert "DATABASE_URL" in failure(engine, *command.split(), DATABASE_URL=url)


def test_a_broker_that_is_not_there_is_named(engine: Engine) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    assert "RABBITMQ_URL" in failure(engine, "dead-letters", "list", RABBITMQ_URL=url)


def test_before_migrating_every_command_is_told_what_to_do_first(engine: Engine, postgres: PostgresServer) -> None:
    url = postgres.create_database("unmigrated")
    for command in ("seed", "verify", "outbox list", "tail", "users list --tenant t"):
        assert "payments-ledger migrate" in failure(engine, *command.split(), DATABASE_URL=url)


@pytest.mark.parametrize(
    "command",
    [
        "verify",
        "tail",
        "outbox list",
        "users list",
        "users disable ops@demo",
        "users enable ops@demo",
        "users roles ops@demo ops",
    ],
)
def test_a_tenant_that_does_not_exist_is_named_by_every_command_that_takes_one(engine: Engine, command: str) -> None:
    done = run(engine, *command.split(), "--tenant", "nowhere")
    assert done.exit_code == REFUSED
    assert "There is no tenant with this id" in done.stderr
    assert "payments-ledger tenants list" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://app@localhost/app"),
        ("RABBITMQ_URL", "kafka://localhost"),
        ("REDIS_URL", "localhost:6379"),
        ("TOKEN_EXPIRES_SECONDS", "an hour"),
        ("RATE_LIMIT_WRITE_PER_MIN", "0"),
        ("APP_ENV", "prod"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(engine: Engine, variable: str, value: str) -> None:
    assert variable in failure(engine, "api", **{variable: value})


@pytest.mark.parametrize(
    ("command", "variable"), [("api --port {}", None), ("api --port 0", "INTERNAL_PORT"), ("worker", "WORKER_PORT")]
)
def test_a_port_that_is_taken_is_named_and_nothing_starts(engine: Engine, command: str, variable: str | None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = engine.environment | ({variable: port} if variable else {})
        arguments = command.format(port).split()
        done = subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == CANNOT
    assert f"Port {port} is taken." in done.stderr
    assert (variable or "--port") in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_two_ports_of_one_process_are_not_the_same(engine: Engine) -> None:
    port = str(free_port())
    environment = engine.environment | {"INTERNAL_PORT": port}
    done = subprocess.run([PROGRAM, "api", "--port", port], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == CANNOT
    assert f"Port {port} is taken." in done.stderr


def test_of_two_workers_that_start_at_once_one_has_the_port(engine: Engine) -> None:
    environment = engine.environment | {"WORKER_PORT": str(free_port())}
    start = partial(subprocess.Popen[str], [PROGRAM, "worker"], env=environment, stderr=subprocess.PIPE, text=True)
    workers = [start(), start()]
    try:
        refused = eventually(lambda: next((worker for worker in workers if worker.poll() is not None), None))
        assert refused.returncode == CANNOT
        assert f"Port {environment['WORKER_PORT']} is taken." in refused.communicate()[1]
        [other] = [worker for worker in workers if worker is not refused]
        eventually(lambda: httpx.get(f"http://127.0.0.1:{environment['WORKER_PORT']}/healthz").is_success)
        assert other.poll() is None
    finally:
        for worker in workers:
            worker.terminate()
            worker.communicate(timeout=60)


def test_an_address_that_is_not_ours_is_named(engine: Engine) -> None:
    # TEST-NET-1 (RFC 5737), which no machine has.
    said = failure(engine, "api", "--host", "192.0.2.1")
    assert "192.0.2.1" in said
    assert "Traceback" not in said


def test_the_version_is_that_of_the_package(engine: Engine) -> None:
    done = run(engine, "--version")
    assert (done.exit_code, done.stdout) == (0, f"payments-ledger {version('payments-ledger')}\n")


def test_the_shell_completes_commands() -> None:
    asked = {"_PAYMENTS_LEDGER_COMPLETE": "complete_bash", "COMP_WORDS": "payments-ledger ver", "COMP_CWORD": "1"}
    done = subprocess.run([PROGRAM], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["verify"]


def test_migrate_says_what_it_applied_and_then_that_there_is_nothing(engine: Engine, postgres: PostgresServer) -> None:
    url = postgres.create_database("told")
    missing = run(engine, "migrate", "--check", DATABASE_URL=url).stdout.splitlines()
    assert missing[0].startswith("to be applied: 0001 ")
    applied = run(engine, "migrate", DATABASE_URL=url).stdout.splitlines()
    assert applied == [*(line.replace("to be applied", "applied") for line in missing), "The schema is up to date."]
    assert run(engine, "migrate", DATABASE_URL=url).stdout == "The schema is up to date.\n"
    assert json.loads(run(engine, "migrate", "--json", DATABASE_URL=url).stdout)["applied"] == []


def test_production_is_not_seeded_with_users_whose_passwords_are_public(
    engine: Engine, postgres: PostgresServer, rabbitmq_server: RabbitmqServer
) -> None:
    url = postgres.create_database("production")
    run(engine, "migrate", DATABASE_URL=url)
    fit = {
        "APP_ENV": "production",
        "JWT_SECRET": "UkQWmbbi8C4Jr1h9MJgPLK6AadvJI0jTqDxHDXTgOeQ",
        "DATABASE_URL": url.replace("app:app@", "app@"),
        "RABBITMQ_URL": rabbitmq_server.url.replace("guest:guest", "ledger:nB5j-yE3a_d6"),
    }
    refused = run(engine, "seed", **fit)
    assert refused.exit_code == 1
    assert "APP_ENV" in refused.stderr
    assert run(engine, "seed", "--unless-production", **fit).exit_code == 0
    assert run(engine, "tenants", "list", **fit).stdout.count("tenant_demo") == 0
    assert run(engine, "seed", "--unless-production", DATABASE_URL=url).exit_code == 0
    assert run(engine, "tenants", "list", **fit).stdout.count("tenant_demo") == 1


def test_a_user_who_may_not_create_roles_is_told_so(engine: Engine, postgres: PostgresServer) -> None:
    powerless = postgres.create_database("powerless", owner="powerless")
    assert "CREATEROLE" in failure(engine, "migrate", DATABASE_URL=powerless)


def test_what_the_command_line_repeats_to_spare_an_import_is_what_it_repeats() -> None:
    assert verify.AUTHORIZED_SECONDS_MAX == invariants.AUTHORIZED_SECONDS_MAX
    assert dead_letters_cli.LIST_LENGTH_MAX == dead_letters.LIST_LENGTH_MAX
