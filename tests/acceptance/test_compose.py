"""compose.yaml without an engine: what it names exists, and each container's command runs with its environment."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from payments_ledger.platform.settings import Settings
from tests.acceptance.conftest import PROGRAM, Engine

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = ["migrate", "seed", "api", "worker"]

# A variable with its default, as Compose writes it: ${NAME:-default}.
VARIABLE = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")


def environment_of(service: str) -> dict[str, str]:
    """As Compose passes it when nobody sets anything."""
    return {name: VARIABLE.sub(r"\1", str(value)) for name, value in SERVICES[service]["environment"].items()}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_with_a_valid_value(service: str) -> None:
    environment = environment_of(service)
    assert {name.lower() for name in environment} <= set(Settings.model_fields)
    Settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("service", OURS)
def test_the_hosts_in_the_urls_are_services(service: str) -> None:
    environment = environment_of(service)
    for variable in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"):
        host = re.sub(r".*(@|//)([a-z]+):\d+.*", r"\2", environment[variable])
        assert host in SERVICES


@pytest.mark.parametrize("service", ["migrate", "seed"])
def test_the_one_shot_commands_run_with_the_environment_of_their_container(service: str, engine: Engine) -> None:
    here = {name: engine.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "PATH")}
    environment = environment_of(service) | here
    subprocess.run([PROGRAM, *SERVICES[service]["command"]], env=environment, check=True, timeout=60)


def test_api_and_worker_serve_with_the_environment_of_their_containers(engine: Engine) -> None:
    here = {name: engine.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "PATH")}
    contained = Engine(environment_of("api") | here, engine.port)
    api, worker = (
        [argument.replace("0.0.0.0", "127.0.0.1") for argument in SERVICES[service]["command"]]  # noqa: S104
        for service in ("api", "worker")
    )
    with contained.process(*api, "--port", str(engine.port)), contained.process(*worker):
        contained.wait_until_ready()


def test_the_ports_are_those_of_the_readme_and_published_on_loopback_only() -> None:
    ports = {port for service in SERVICES.values() for port in service.get("ports", [])}
    assert ports == {f"127.0.0.1:{port}:{port}" for port in (8000, 15672, 9090, 3000)}


def test_every_file_that_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists()
