"""The one command of a new user: an embedded database, and a payment walked to SETTLED."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx

from tests.acceptance.conftest import PROGRAM, eventually, free_port
from tests.acceptance.test_smoke import smoke


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
        assert smoke(f"http://127.0.0.1:{port}") == (0, [], "17 of 17 checks held.")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(dev(tmp_path / "data", "--port", port), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stdout
    assert not (tmp_path / "data").exists()
