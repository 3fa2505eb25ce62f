"""What the command line says when something is not as it should be: what is wrong, and what to do."""

import pytest

from payments_ledger.cli import books
from payments_ledger.cli import dead_letters as dead_letters_cli
from payments_ledger.operations import dead_letters
from payments_ledger.verify import audit
from tests.acceptance.conftest import Engine, free_port
from tests.acceptance.conftest import command as run
from tests.services import PostgresServer

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


def test_a_user_who_may_not_create_roles_is_told_so(engine: Engine, postgres: PostgresServer) -> None:
    powerless = postgres.create_database("powerless", owner="powerless")
    assert "CREATEROLE" in failure(engine, "migrate", DATABASE_URL=powerless)


def test_what_the_command_line_repeats_to_spare_an_import_is_what_it_repeats() -> None:
    assert books.AUTHORIZED_SECONDS_MAX == audit.AUTHORIZED_SECONDS_MAX
    assert dead_letters_cli.LIST_LENGTH_MAX == dead_letters.LIST_LENGTH_MAX
