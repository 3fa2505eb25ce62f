"""Deploying without a Docker engine at hand: the secrets that up.sh makes, the image that it builds, and the pins."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRETS = (
    "JWT_SECRET",
    "POSTGRES_PASSWORD",
    "POSTGRES_SUPERUSER_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_PASSWORD",
    "GRAFANA_PASSWORD",
)
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the scripts work on, and a docker that writes down what it is asked."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("compose.yaml", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path / name)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\ncase "$*" in *imagetools*) echo {DIGEST};; esac\n')
    docker.chmod(0o755)
    return tmp_path


def run(checkout: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    unset = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return subprocess.run(
        [checkout / "scripts" / script],
        env=unset | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"} | variables,
        capture_output=True,
        text=True,
        timeout=30,
    )


def written(checkout: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (checkout / ".env").read_text().splitlines() if "=" in line)


def test_up_makes_a_random_secret_for_each_that_compose_demands(checkout: Path) -> None:
    done = run(checkout, "up.sh")
    assert done.returncode == 0, done.stderr
    made = written(checkout)
    assert made.keys() == set(SECRETS)
    assert set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "compose.yaml").read_text())) == set(SECRETS)
    assert len(set(made.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in made.values())
    assert (checkout / ".env").stat().st_mode & 0o777 == 0o600
    assert not [secret for secret in made.values() if secret in done.stdout + done.stderr]
    assert "compose up" in (checkout / "asked").read_text()


def test_a_second_up_changes_nothing(checkout: Path) -> None:
    run(checkout, "up.sh")
    before = (checkout / ".env").read_text()
    assert run(checkout, "up.sh").returncode == 0
    assert (checkout / ".env").read_text() == before


def test_what_is_set_already_is_never_overwritten_and_the_file_becomes_private(checkout: Path) -> None:
    env = checkout / ".env"
    mine = "# mine\nJWT_SECRET = of my own\nLOG_LEVEL=DEBUG\nGRAFANA_PASSWORD=\nexport REDIS_PASSWORD=mine-too"
    env.write_text(mine)
    env.chmod(0o644)
    assert run(checkout, "up.sh", RABBITMQ_PASSWORD="from the environment").returncode == 0
    text = env.read_text()
    assert text.startswith(f"{mine}\n")
    added = dict(line.split("=", 1) for line in text.removeprefix(mine).strip().splitlines())
    assert added.keys() == {"POSTGRES_PASSWORD", "POSTGRES_SUPERUSER_PASSWORD", "GRAFANA_PASSWORD"}
    assert env.stat().st_mode & 0o777 == 0o600


def test_pinning_writes_the_digest_of_every_image_and_can_be_repeated(checkout: Path) -> None:
    before = {name: (checkout / name).read_text() for name in ("compose.yaml", "Dockerfile")}
    for _ in range(2):
        done = run(checkout, "pin-images.sh")
        assert done.returncode == 0, done.stderr
        for name, text in before.items():
            pinned = (checkout / name).read_text()
            assert pinned.count(f"@{DIGEST}") == {"compose.yaml": 5, "Dockerfile": 1}[name]
            assert pinned.replace(f"@{DIGEST}", "") == text
    images = re.findall(r"^ *image: (.*)$", (checkout / "compose.yaml").read_text(), re.MULTILINE)
    assert [image for image in images if "@" not in image] == ["payments-ledger:local"]


def test_a_registry_that_names_no_digest_changes_nothing(checkout: Path) -> None:
    docker = checkout / "bin" / "docker"
    docker.write_text(docker.read_text().replace(DIGEST, "no-such-image"))
    before = (checkout / "compose.yaml").read_text()
    done = run(checkout, "pin-images.sh")
    assert done.returncode == 1
    assert "no-such-image" in done.stderr
    assert (checkout / "compose.yaml").read_text() == before


def test_every_stage_of_the_image_begins_with_the_one_base_image_that_is_pinned() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.12\.\d+-[a-z-]+(@sha256:[0-9a-f]{64})?$", dockerfile, re.MULTILINE)


def test_nothing_is_installed_into_the_image_without_its_hash() -> None:
    for step in re.findall(r"pip (?:install|wheel) .*", (ROOT / "Dockerfile").read_text()):
        assert "--require-hashes" in step or "--no-index" in step, step
    with (ROOT / "pyproject.toml").open("rb") as file:
        [backend] = tomllib.load(file)["build-system"]["requires"]
    for lock in ("requirements.lock", "requirements-build.lock"):
        requirements = re.split(r"\n(?=\S)", re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE))
        assert not [requirement for requirement in requirements if "--hash=sha256:" not in requirement]
    assert backend in (ROOT / "requirements-build.lock").read_text()


def test_the_wheel_of_the_image_is_built_from_what_the_image_is_given_and_nothing_else(tmp_path: Path) -> None:
    """The Dockerfile's own step, with the build backend of this environment, which has the same lock."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    for given in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        *sources, target = given.split()
        assert set(sources) <= allowed
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    [step] = re.findall(r"^RUN /opt/backend/bin/(pip wheel .*)$", dockerfile, re.MULTILINE)
    subprocess.run([sys.executable, "-m", *step.split()], cwd=tmp_path, check=True, timeout=120)
    [wheel] = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith("payments_ledger-")
