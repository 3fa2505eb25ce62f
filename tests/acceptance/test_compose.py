"""compose.yaml without an engine: what it names exists, and each container's command runs with its environment."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from payments_ledger.platform.settings import Settings
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.services import RABBITMQ_SETTINGS, RabbitmqServer

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = ["migrate", "seed", "api", "worker"]
ONE_SHOT = ["migrate", "seed"]

# A variable with its default, as Compose writes it: ${NAME:-default}.
VARIABLE = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")


def environment_of(service: str) -> dict[str, str]:
    """As Compose passes it when nobody sets anything."""
    return {name: VARIABLE.sub(r"\1", str(value)) for name, value in SERVICES[service]["environment"].items()}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_with_a_valid_value(service: str) -> None:
    environment = environment_of(service)
    assert {name.lower() for name in environment if not name.startswith("OTEL_")} <= set(Settings.model_fields)
    Settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("service", OURS)
def test_the_hosts_in_the_urls_are_services(service: str) -> None:
    environment = environment_of(service)
    for variable in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"):
        host = re.sub(r".*(@|//)([a-z]+):\d+.*", r"\2", environment[variable])
        assert host in SERVICES


def test_compose_itself_accepts_the_file() -> None:
    """docker-compose, from Debian's package, needs no engine to read it."""
    subprocess.run(["docker-compose", "--file", ROOT / "compose.yaml", "config", "--quiet"], check=True, timeout=60)


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_confined_and_comes_back(service: str) -> None:
    container = SERVICES[service]
    assert container["read_only"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert container["restart"] == ("on-failure" if service in ONE_SHOT else "unless-stopped")
    assert ("healthcheck" in container) == (service not in ONE_SHOT)


@pytest.mark.parametrize("service", ONE_SHOT)
def test_something_that_stays_depends_on_each_one_shot_command(service: str) -> None:
    """Else `docker compose up --wait` takes its end for a failure."""
    depending = [name for name, other in SERVICES.items() if service in other.get("depends_on", ())]
    assert set(depending) - set(ONE_SHOT)


@pytest.mark.parametrize("service", sorted(SERVICES.keys() - set(OURS)))
def test_every_image_is_pinned_to_a_release(service: str) -> None:
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", SERVICES[service]["image"])


def test_what_has_to_last_is_kept_in_volumes_that_have_names() -> None:
    kept = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {"postgres", "rabbitmq", "prometheus", "grafana"} <= kept
    assert set(yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]) <= kept


@pytest.mark.parametrize("service", ONE_SHOT)
def test_the_one_shot_commands_run_with_the_environment_of_their_container(service: str, engine: Engine) -> None:
    subprocess.run(
        [PROGRAM, *SERVICES[service]["command"]], env=environment_of(service) | here(engine), check=True, timeout=60
    )


def test_api_and_worker_serve_and_their_health_checks_pass_with_the_environment_of_their_containers(
    engine: Engine,
) -> None:
    ports = {"api": engine.port, "worker": free_port()}
    contained = Engine(environment_of("api") | here(engine) | {"WORKER_PORT": str(ports["worker"])}, engine.port)
    api, worker = (natively(SERVICES[service]["command"]) for service in ("api", "worker"))
    with contained.process(*api, "--port", str(engine.port)), contained.process(*worker):
        contained.wait_until_ready()
        for service in ("api", "worker"):
            eventually(lambda service=service: is_healthy(service, ports[service]))  # type: ignore[misc]
    assert not is_healthy("api", ports["api"])


def test_redis_runs_with_the_arguments_of_its_container_and_passes_its_health_check(tmp_path: Path) -> None:
    port = free_port()
    program, *arguments = SERVICES["redis"]["command"]
    redis = subprocess.Popen([program, *arguments, "--port", str(port), "--dir", tmp_path], stdout=subprocess.PIPE)
    try:
        _, check, *ping = SERVICES["redis"]["healthcheck"]["test"]
        eventually(lambda: subprocess.run([check, "-p", str(port), *ping], capture_output=True).stdout == b"PONG\n")
        shown = subprocess.run([check, "-p", str(port), "info", "memory"], capture_output=True, text=True).stdout
        assert "maxmemory_policy:noeviction" in shown
        assert f"maxmemory:{128 * 1024**2}" in shown
    finally:
        redis.terminate()
        redis.communicate()
    assert list(tmp_path.iterdir()) == []


def test_rabbitmq_runs_with_the_settings_of_its_container(rabbitmq_server: RabbitmqServer) -> None:
    """As it does in every test: tests/services.py hands it the very file that compose.yaml mounts."""
    mounted = [volume.partition(":")[0] for volume in SERVICES["rabbitmq"]["volumes"]]
    assert RABBITMQ_SETTINGS.relative_to(ROOT).as_posix() in {path.removeprefix("./") for path in mounted}
    assert rabbitmq_server.port


def here(engine: Engine) -> dict[str, str]:
    """Where the services are outside of containers."""
    return {name: engine.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "PATH")}


def natively(command: list[str]) -> list[str]:
    """On loopback, where a container listens to every address it has."""
    return [argument.replace("0.0.0.0", "127.0.0.1") for argument in command]  # noqa: S104


def is_healthy(service: str, port: int) -> bool:
    """What Compose would find out by the service's health check."""
    _, _, *arguments = SERVICES[service]["healthcheck"]["test"]
    script = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", arguments[-1])
    return subprocess.run([sys.executable, *arguments[:-1], script], capture_output=True).returncode == 0


def test_the_ports_are_those_of_the_readme_and_published_on_loopback_only() -> None:
    ports = {port for service in SERVICES.values() for port in service.get("ports", [])}
    assert ports == {f"127.0.0.1:{port}:{port}" for port in (8000, 15672, 9090, 3000)}


def test_every_file_that_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists()
