"""scripts/smoke.sh is green on a whole engine and red when a part of it is missing."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import Engine, free_port
from tests.acceptance.smoke import SCRIPT, run_smoke, smoke
from tests.services import PostgresServer, RabbitmqServer, RedisServer


def test_a_whole_engine_is_green_and_every_line_tells_what_was_seen(engine: Engine) -> None:
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        done = run_smoke(engine.base_url)
    *lines, last = done.stdout.splitlines()
    assert (done.returncode, last) == (0, "18 of 18 checks held.")
    assert [line for line in lines if not re.fullmatch(r"ok    [a-zA-Z ]+: .+", line)] == []
    created = re.search(r"an intent is created: 201 \(payment ([0-9a-f-]{36})\)", done.stdout)
    assert created
    assert f"gets the same response: 201 {created[1]}" in done.stdout


def test_no_policy_of_another_tenant_is_in_its_way_and_its_payments_stay_small(engine: Engine) -> None:
    """The policies are those of the how-to page."""
    page = (SCRIPT.parents[1] / "docs/how-to/policies.md").read_text()
    policies = re.findall(r"-X PUT \S+/v1/admin/policies/([a-z-]+) .*?-d '(.*?)'", page, re.DOTALL)
    assert len(policies) == 2
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        with logged_in(engine, "admin@local", "admin123", "tenant_demo") as admin:
            for name, body in policies:
                admin.put(f"/v1/admin/policies/{name}", content=body).raise_for_status()
            try:
                assert smoke(engine.base_url) == (0, [], "18 of 18 checks held.")
            finally:
                for name, _ in policies:
                    admin.delete(f"/v1/admin/policies/{name}").raise_for_status()
        with logged_in(engine, "smoke@demo", "smoke123", "tenant_smoke") as client:
            balances = client.get("/v1/ledger/balances").raise_for_status().json()
    assert balances
    assert all(Decimal(balance["debits_total"]) < 1 for balance in balances)


@contextmanager
def logged_in(engine: Engine, email: str, password: str, tenant: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.base_url, timeout=10) as client:
        token = client.post("/v1/auth/token", json={"email": email, "password": password}).raise_for_status().json()
        client.headers.update(
            {
                "Authorization": f"Bearer {token['access_token']}",
                "X-Tenant-Id": tenant,
                "Content-Type": "application/json",
            }
        )
        yield client


def test_where_nothing_is_made_no_line_is_ok_that_tells_of_it(engine: Engine) -> None:
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        done = run_smoke(
            engine.base_url, SMOKE_TENANT="tenant_demo", SMOKE_EMAIL="sales@demo", SMOKE_PASSWORD="sales123"
        )
    assert done.returncode == 1
    made = [line for line in done.stdout.splitlines() if "created" in line or "exact" in line or "replay" in line]
    assert made
    assert all(line.startswith("FAIL") for line in made)
    assert "permission_denied" in done.stdout


def test_nothing_at_all_is_red() -> None:
    status, failures, last = smoke(f"http://127.0.0.1:{free_port()}")
    assert (status, len(failures), last) == (1, 1, "Only 1 of 18 checks were made; 0 held.")


def test_a_missing_worker_is_red(engine: Engine) -> None:
    with engine.api():
        engine.wait_until_ready()
        status, failures, _ = smoke(engine.base_url, SMOKE_SETTLE_SECONDS="2")
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
            status, failures, _ = smoke(engine.base_url, SMOKE_SETTLE_SECONDS="2")
        finally:
            service.start()
    assert status == 1
    assert f"FAIL  unavailable dependencies: expected none, got ['{away}']" in failures


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
