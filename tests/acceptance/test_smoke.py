"""scripts/smoke.sh is green on a whole engine and red when a part of it is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import Engine, free_port
from tests.services import PostgresServer, RabbitmqServer, RedisServer

SCRIPT = Path(__file__).parents[2] / "scripts" / "smoke.sh"


def smoke(base_url: str) -> tuple[int, list[str], str]:
    """Its exit status, the checks that failed, and its last line."""
    done = subprocess.run([SCRIPT, base_url], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    return done.returncode, [line for line in lines if line.startswith("FAIL")], lines[-1]


def test_a_whole_engine_is_green(engine: Engine) -> None:
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        assert smoke(engine.base_url) == (0, [], "17 of 17 checks held.")


def test_nothing_at_all_is_red() -> None:
    status, failures, last = smoke(f"http://127.0.0.1:{free_port()}")
    assert (status, len(failures), last) == (1, 1, "Only 1 of 17 checks were made; 0 held.")


def test_a_missing_worker_is_red(engine: Engine) -> None:
    with engine.api():
        engine.wait_until_ready()
        status, failures, _ = smoke(engine.base_url)
    assert status == 1
    assert any("it settles" in failure for failure in failures)


@pytest.mark.parametrize(
    ("name", "away"), [("postgres", "postgresql"), ("redis_server", "redis"), ("rabbitmq_server", "rabbitmq")]
)
def test_a_missing_service_is_red_and_named(
    engine: Engine, name: str, away: str, request: pytest.FixtureRequest
) -> None:
    service: PostgresServer | RedisServer | RabbitmqServer = request.getfixturevalue(name)
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        service.stop()
        try:
            status, failures, _ = smoke(engine.base_url)
        finally:
            service.start()
    assert status == 1
    assert f"FAIL  of the dependencies away: expected none, got ['{away}']" in failures


@pytest.mark.parametrize("script", ["up", "down", "migrate", "seed", "logs"])
def test_without_docker_the_scripts_name_the_way_that_needs_none(script: str, tmp_path: Path) -> None:
    """A PATH with what the scripts use, and without docker."""
    for program in ("bash", "env", "dirname"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    path = SCRIPT.with_name(f"{script}.sh")
    done = subprocess.run([path], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "Docker" in done.stderr
    assert "./scripts/dev.sh" in done.stderr
