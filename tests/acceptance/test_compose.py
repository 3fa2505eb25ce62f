"""compose.yaml without an engine: what it names exists, and each container's command runs with its environment."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]

from payments_ledger.postgres.database import driver_url
from payments_ledger.process.settings import Settings
from payments_ledger.telemetry import tracing
from tests.acceptance.conftest import PROGRAM, Engine, eventually, free_port
from tests.services import RABBITMQ_SETTINGS, PostgresServer, RabbitmqServer

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = ["migrate", "seed", "api", "worker"]
ONE_SHOT = ["migrate", "seed"]

SECRETS = (
    "JWT_SECRET",
    "POSTGRES_PASSWORD",
    "POSTGRES_SUPERUSER_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_PASSWORD",
    "GRAFANA_PASSWORD",
)
# Where the services are is for compose.yaml to say; FAILPOINTS is for tests.
NOT_PASSED_ON = {"DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "WORKER_PORT", "FAILPOINTS"}
SETTINGS = {name.upper() for name in Settings.model_fields}
# As scripts/up.sh makes them.
SET = {name: f"{name.lower().replace('_', '')}9c41e07bd25fa863905e7d12c86bfa34" for name in SECRETS}


def composed(folder: Path, written: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What docker-compose makes of the file beside a .env with these lines; it needs no engine to read it."""
    (folder / "compose.yaml").write_text((ROOT / "compose.yaml").read_text())
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in written.items()))
    unset = {name: value for name, value in os.environ.items() if name not in SETTINGS and name not in SECRETS}
    command = ["docker-compose", "--file", "compose.yaml", "config"]
    return subprocess.run(command, cwd=folder, env=unset, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As Compose sees them when nobody sets anything but the secrets."""
    done = composed(tmp_path_factory.mktemp("compose"), SET)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """What has no value is not set in the container."""
    return {name: str(value) for name, value in service["environment"].items() if value is not None}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_with_a_valid_value(services: dict[str, Any], service: str) -> None:
    assert {name for name in services[service]["environment"] if not name.startswith("OTEL_")} <= SETTINGS
    environment = environment_of(services[service])
    Settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize("service", OURS)
def test_every_setting_that_is_written_down_reaches_the_container(tmp_path: Path, service: str) -> None:
    passed_on = (SETTINGS - NOT_PASSED_ON) | {*tracing.ENDPOINTS, "OTEL_SDK_DISABLED"}
    written = {name: f"value-of-{name}" for name in passed_on}
    done = composed(tmp_path, SET | written)
    assert done.returncode == 0, done.stderr
    assert written.items() <= yaml.safe_load(done.stdout)["services"][service]["environment"].items()


def test_no_container_is_handed_a_secret_that_it_does_not_need(services: dict[str, Any]) -> None:
    """In a URL counts as well."""
    known = {
        name: {secret for secret in SECRETS if SET[secret] in str(service.get("environment"))}
        for name, service in services.items()
    }
    ours = {"JWT_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "RABBITMQ_PASSWORD"}
    assert known == dict.fromkeys(OURS, ours) | {
        "postgres": {"POSTGRES_PASSWORD", "POSTGRES_SUPERUSER_PASSWORD"},
        "redis": {"REDIS_PASSWORD"},
        "rabbitmq": {"RABBITMQ_PASSWORD"},
        "prometheus": set(),
        "grafana": {"GRAFANA_PASSWORD"},
    }
    assert not [
        secret for secret in SET.values() if any(secret in str(one.get("command")) for one in services.values())
    ]


@pytest.mark.parametrize("secret", SECRETS)
def test_without_a_secret_compose_starts_nothing_and_names_it(tmp_path: Path, secret: str) -> None:
    done = composed(tmp_path, {name: value for name, value in SET.items() if name != secret})
    assert done.returncode != 0
    assert f"{secret} is missing, run scripts/up.sh" in done.stderr


def test_compose_is_fit_for_production_with_random_secrets_and_does_not_seed_there(services: dict[str, Any]) -> None:
    assert services["seed"]["command"] == ["seed", "--unless-production"]
    environment = environment_of(services["api"]) | {"APP_ENV": "production"}
    Settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]


def test_settings_example_compose_and_reference_name_the_same_variables() -> None:
    """What each has besides: Compose's own variables, OpenTelemetry's, and the data folder of dev.sh."""
    composes_own = {*SECRETS, "RABBITMQ_USER"} - SETTINGS
    outside = {"OTEL_EXPORTER_OTLP_ENDPOINT", "LEDGER_DATA"}
    documented = SETTINGS - {"FAILPOINTS"} | outside | composes_own
    example = re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(example) == sorted(documented)
    reference = (ROOT / "docs/reference/settings.md").read_text()
    assert sorted(re.findall(r'<a id="([A-Z_]+)">', reference)) == sorted(documented)
    passed_on = {name for name in SERVICES["api"]["environment"] if not name.startswith("OTEL_")}
    assert passed_on == SETTINGS - {"FAILPOINTS"}


def test_the_example_says_the_defaults() -> None:
    values = dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    # Shown as an example, since there is no default.
    shown = {name: value for name, value in values.items() if name not in ("JWT_AUDIENCE", "INTERNAL_PORT")}
    said = Settings(_env_file=None, **{name.lower(): text for name, text in shown.items() if name in SETTINGS})
    assert said.model_dump() == Settings.model_construct().model_dump()


@pytest.mark.parametrize("service", OURS)
def test_the_hosts_in_the_urls_are_services(services: dict[str, Any], service: str) -> None:
    environment = environment_of(services[service])
    for variable in ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"):
        host = re.sub(r".*(@|//)([a-z]+):\d+.*", r"\2", environment[variable])
        assert host in SERVICES


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
    """scripts/pin-images.sh adds the digest, which only a registry knows."""
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?", SERVICES[service]["image"])


def test_what_has_to_last_is_kept_in_volumes_that_have_names() -> None:
    kept = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {"postgres", "rabbitmq", "prometheus", "grafana"} <= kept
    assert set(yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]) <= kept


@pytest.mark.parametrize("service", ONE_SHOT)
def test_the_one_shot_commands_run_with_the_environment_of_their_container(
    services: dict[str, Any], service: str, engine: Engine
) -> None:
    environment = environment_of(services[service]) | here(engine)
    subprocess.run([PROGRAM, *SERVICES[service]["command"]], env=environment, check=True, timeout=60)


def test_api_and_worker_serve_and_their_health_checks_pass_with_the_environment_of_their_containers(
    services: dict[str, Any], engine: Engine
) -> None:
    ports = {"api": engine.port, "worker": free_port()}
    contained = Engine(
        environment_of(services["api"]) | here(engine) | {"WORKER_PORT": str(ports["worker"])}, engine.port
    )
    api, worker = (natively(SERVICES[service]["command"]) for service in ("api", "worker"))
    with contained.process(*api, "--port", str(engine.port)), contained.process(*worker):
        contained.wait_until_ready()
        for service in ("api", "worker"):
            eventually(lambda service=service: is_healthy(service, ports[service]))  # type: ignore[misc]
    assert not is_healthy("api", ports["api"])


def test_redis_runs_as_its_container_does_demands_its_password_and_passes_its_health_check(
    services: dict[str, Any], tmp_path: Path
) -> None:
    port = free_port()
    shell, script, *arguments = SERVICES["redis"]["command"]
    data = tmp_path / "data"
    data.mkdir()
    environment = os.environ | environment_of(services["redis"]) | {"TMPDIR": str(tmp_path)}
    command = [shell, mounted(services, script), *arguments, "--port", str(port), "--dir", str(data)]
    redis = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        _, check, *ping = SERVICES["redis"]["healthcheck"]["test"]

        def ask(*asked: str, **variables: str) -> subprocess.CompletedProcess[str]:
            asking = [check, "-p", str(port), *asked]
            return subprocess.run(asking, env=environment | variables, capture_output=True, text=True)

        eventually(lambda: ask(*ping).returncode == 0)
        assert ask(*ping, REDISCLI_AUTH="").returncode != 0
        assert "NOAUTH" in ask("get", "key", REDISCLI_AUTH="").stdout
        shown = ask("info", "memory").stdout
        assert "maxmemory_policy:noeviction" in shown
        assert f"maxmemory:{128 * 1024**2}" in shown
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
        assert SET["REDIS_PASSWORD"] not in Path(f"/proc/{redis.pid}/cmdline").read_text()
    finally:
        redis.terminate()
        redis.communicate()
    assert list(data.iterdir()) == []


def test_the_owner_that_postgresqls_container_makes_is_no_superuser_and_runs_the_engine(
    services: dict[str, Any], engine: Engine, postgres: PostgresServer
) -> None:
    """Its script, as the image runs it, on another server of the same version."""
    query = parse_qs(urlsplit(postgres.url).query)
    environment = environment_of(services["postgres"]) | {
        "OWNER": "composed",
        "PATH": f"{postgres.program('psql').parent}:{os.environ['PATH']}",
        "PGHOST": query["host"][0],
        "PGPORT": query["port"][0],
    }
    script = mounted(services, "/docker-entrypoint-initdb.d/make-owner.sh")
    subprocess.run([script], env=environment, check=True, timeout=60)
    url = postgres.url.replace("app:app@/app?", f"composed:{SET['POSTGRES_PASSWORD']}@/composed?")
    with psycopg.connect(driver_url(url)) as conn:
        powers = conn.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        owner = conn.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert powers == (False, False, True)
    assert owner == ("composed",)
    for one_shot in ONE_SHOT:
        subprocess.run(
            [PROGRAM, *SERVICES[one_shot]["command"]],
            env=environment_of(services[one_shot]) | here(engine) | {"DATABASE_URL": url},
            check=True,
            timeout=60,
        )


def mounted(services: dict[str, Any], path: str) -> str:
    """Which file of ours a container sees at the path."""
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target, *_ = str(volume).split(":")
            if target == path:
                return str(ROOT / Path(source).relative_to(Path(services["api"]["build"]["context"])))
    raise AssertionError(path)


def test_rabbitmq_runs_with_the_settings_of_its_container(rabbitmq_server: RabbitmqServer) -> None:
    """As it does in every test: tests/services.py hands it the very file that compose.yaml mounts."""
    sources = [volume.partition(":")[0] for volume in SERVICES["rabbitmq"]["volumes"]]
    assert RABBITMQ_SETTINGS.relative_to(ROOT).as_posix() in {path.removeprefix("./") for path in sources}
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


def test_the_ports_are_those_of_the_documents_and_published_on_loopback_only() -> None:
    ports = {port for service in SERVICES.values() for port in service.get("ports", [])}
    assert ports == {f"127.0.0.1:{port}:{port}" for port in (8000, 15672, 9090, 3000)}


def test_every_file_that_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists()
