"""The one command of a new user: an embedded database, and a payment walked to SETTLED."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from payments_ledger.process.settings import Settings
from tests.acceptance.conftest import PROGRAM, eventually, free_port
from tests.acceptance.smoke import smoke


def dev(data: Path, *arguments: str) -> list[str]:
    return [str(PROGRAM), "dev", "--data", str(data), *arguments]


def test_the_walk_ends_settled_and_a_second_start_keeps_the_data(tmp_path: Path) -> None:
    for start in (1, 2):
        command = dev(tmp_path / "data", "--once", "--port", str(free_port()))
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SETTLED" in done.stdout
        assert f"{start}00.00" in done.stdout
        assert "the books balance" in done.stdout


def test_it_serves_what_the_smoke_script_asks_for_until_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    # A session of its own, as a terminal gives it: Ctrl-C reaches the whole process group.
    process = subprocess.Popen(dev(tmp_path / "data", "--port", str(port)), start_new_session=True)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").is_success, seconds=60)
        assert smoke(f"http://127.0.0.1:{port}") == (0, [], "18 of 18 checks held.")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a new user, in which there is nothing yet."""
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="module")
def terminal(folder: Path) -> Iterator[Path]:
    """What the first terminal shows while the engine serves from the folder's .ledger."""
    port = free_port()
    shown = folder / "terminal"
    with shown.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, "dev", "--port", str(port)], cwd=folder, env=without_settings(), stdout=output
        )
    try:
        eventually(lambda: "second terminal" in shown.read_text(), seconds=60)
        yield shown
    finally:
        process.terminate()
        process.wait(60)


def without_settings() -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    return {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}


def in_second_terminal(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=without_settings() | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_last_lines_name_address_user_password_and_a_next_command_that_works(terminal: Path, folder: Path) -> None:
    serving, login, following = terminal.read_text().strip().splitlines()[-3:]
    address = re.search(r"http://127\.0\.0\.1:\d+", serving)
    credentials = re.search(r"Log in as (\S+), password (\S+), tenant (\w+)", login)
    assert address
    assert credentials
    body = dict(zip(("email", "password", "tenantId"), credentials.groups(), strict=True))
    assert httpx.post(f"{address[0]}/v1/auth/token", json=body).is_success
    command = following.removeprefix("In a second terminal: ").split()
    done = subprocess.run(command, cwd=folder, env=without_settings(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("status", "SETTLED|settlements"),
        ("verify --tenant tenant_demo", "ok"),
        ("outbox list", "no unpublished events"),
        ("users list --tenant tenant_demo", "ops@demo"),
        ("dead-letters list", "There are no dead letters"),
        ("migrate", "up to date"),
    ],
)
def test_commands_in_a_second_terminal_reach_the_engine_and_say_so(
    terminal: Path, folder: Path, arguments: str, said: str
) -> None:
    done = in_second_terminal(folder, *arguments.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(said, done.stdout)
    assert done.stderr == "Using the engine in .ledger.\n"


def test_tail_in_a_second_terminal_follows_the_engine(terminal: Path, folder: Path) -> None:
    since = ("--since", "2020-01-01T00:00:00", "--json")
    with subprocess.Popen(
        [PROGRAM, "tail", *since], cwd=folder, env=without_settings(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert "payment.intent.created" in process.stdout.readline()
        process.terminate()


def test_a_database_that_is_named_wins_over_the_engine_in_the_folder(terminal: Path, folder: Path) -> None:
    url = f"postgresql://app:app@127.0.0.1:{free_port()}/app"
    done = in_second_terminal(folder, "users", "list", "--tenant", "tenant_demo", DATABASE_URL=url)
    assert done.returncode == 3
    assert "Cannot reach PostgreSQL" in done.stderr
    assert ".ledger" not in done.stderr


def test_an_engine_that_is_not_running_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "postgres" / "data").mkdir(parents=True)
    done = in_second_terminal(tmp_path, "status", LEDGER_DATA="elsewhere")
    assert done.returncode == 3
    assert "The engine in elsewhere is not running" in done.stderr
    assert "dev.sh" in done.stderr


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(dev(tmp_path / "data", "--port", port), capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert f"Port {port} is taken" in done.stderr
    assert not (tmp_path / "data").exists()
