"""An administrator who clings to their rights by every request they have, against an operator who takes them away."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest

from tests.engine_process import PROGRAM
from tests.faults.system import TENANT, System
from tests.profiles import scaled

PASSWORD = "a long password"
TRIES = scaled(2, nightly=5)
# Longer than any process remembers what it was told of a user.
CLING_SECONDS = 2.5


def operate(system: System, *arguments: str, typed: str = "") -> None:
    subprocess.run(
        [PROGRAM, "users", *arguments, "--tenant", TENANT],
        env=system.environment,
        input=typed,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Rogue:
    """Asks both API processes over and over to be let in, to be an administrator, and for a policy of their own."""

    def __init__(self, system: System) -> None:
        self.email = f"{uuid4()}@demo"
        operate(system, "add", self.email, "--role", "admin", typed=f"{PASSWORD}\n")
        credentials = {"email": self.email, "password": PASSWORD, "tenantId": TENANT}
        answer = httpx.post(f"{system.base_urls[0]}/v1/auth/token", json=credentials, timeout=10).raise_for_status()
        self._headers = {"Authorization": f"Bearer {answer.json()['access_token']}", "X-Tenant-Id": TENANT}
        self._base_urls = system.base_urls
        self.id = httpx.get(f"{self._base_urls[0]}/v1/me", headers=self._headers).raise_for_status().json()["sub"]
        self.requests = 0

    @contextmanager
    def clinging(self) -> Iterator[None]:
        stop = threading.Event()
        threads = [threading.Thread(target=self._cling, args=(base_url, stop)) for base_url in self._base_urls]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _cling(self, base_url: str, stop: threading.Event) -> None:
        user = f"/v1/admin/users/{self.id}"
        with httpx.Client(base_url=base_url, headers=self._headers, timeout=10) as client:
            while not stop.is_set():
                client.post(f"{user}/enable")
                client.put(f"{user}/roles", json={"roles": ["admin", "ops"]})
                client.put(
                    f"/v1/admin/policies/rogue-{self.id[-12:]}", json={"effect": "allow", "roles": [uuid4().hex]}
                )
                self.requests += 1


def state_of(system: System, rogue: Rogue) -> tuple[bool, list[str], int]:
    """Whether they are disabled, their roles, and how many changes they have made."""
    with system.owner() as conn:
        row = conn.execute(
            """
            SELECT disabled_at IS NOT NULL,
                   ARRAY(SELECT role FROM user_roles WHERE tenant_id = users.tenant_id AND user_id = users.id),
                   (SELECT count(*) FROM audit_log WHERE principal = users.id::text AND action NOT LIKE 'refuse.%%'
                                                     AND action <> 'user.log_in')
            FROM users WHERE tenant_id = %s AND email = %s
            """,
            [TENANT, rogue.email],
        ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize(
    ("command", "roles", "is_disabled", "roles_left"),
    [("disable", (), True, ["admin"]), ("roles", ("sales",), False, ["sales"])],
)
def test_a_rogue_administrator_loses_to_the_operator_in_every_try(
    system: System, command: str, roles: tuple[str, ...], is_disabled: bool, roles_left: list[str]
) -> None:
    for _ in range(TRIES):
        rogue = Rogue(system)
        with rogue.clinging():
            # They are in the middle of it, in both processes.
            while state_of(system, rogue)[2] < 4:
                time.sleep(0.05)
            operate(system, command, rogue.email, *roles)
            told, asked = state_of(system, rogue), rogue.requests
            time.sleep(CLING_SECONDS)
        assert rogue.requests > asked
        assert state_of(system, rogue) == told
        assert told[:2] == (is_disabled, roles_left)
