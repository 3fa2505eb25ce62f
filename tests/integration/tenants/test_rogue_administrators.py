"""An administrator who loses their rights changes nothing more, whatever a process remembers of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.process.settings import Settings
from payments_ledger.tenants.queries import lock_tenant, set_disabled
from tests.integration.administration import DENY_ALL, POLICIES, USERS, audit, put, subject_of
from tests.integration.conftest import Api, serving
from tests.integration.http import assert_problem

pytestmark = pytest.mark.anyio

CHAOS = "/v1/admin/chaos"

# Every change that can be made over HTTP; {self} is its author, {other} another user of the tenant.
CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", f"{POLICIES}/new", {"effect": "allow"}),
    ("DELETE", f"{POLICIES}/spare", None),
    ("POST", f"{USERS}/{{other}}/disable", None),
    ("POST", f"{USERS}/{{other}}/enable", None),
    ("POST", f"{USERS}/{{self}}/enable", None),
    ("PUT", f"{USERS}/{{other}}/roles", {"roles": ["admin"]}),
    ("PUT", f"{USERS}/{{self}}/roles", {"roles": ["admin", "ops"]}),
    ("PUT", CHAOS, {"enabled": True, "fail_percent": 100}),
)
GLOBAL_CHANGES: tuple[tuple[str, str, Any], ...] = (
    *CHANGES,
    ("POST", "/v1/admin/tenant/suspend", None),
    ("POST", "/v1/admin/tenant/resume", None),
)

# How the operator bars somebody, past every process that remembers them; and what they are told then.
BARRED: dict[str, tuple[str, int, str]] = {
    "disabled": (
        "UPDATE users SET disabled_at = now() WHERE tenant_id = %(home)s AND id = %(id)s",
        401,
        "token_revoked",
    ),
    "without a role": (
        "DELETE FROM user_roles WHERE tenant_id = %(home)s AND user_id = %(id)s",
        403,
        "permission_denied",
    ),
    "denied by a policy": (
        "INSERT INTO policies (tenant_id, name, effect, subjects) VALUES (%(home)s, %(id)s, 'deny', ARRAY[%(id)s])",
        403,
        "policy_denied",
    ),
    "of a suspended tenant": (
        "UPDATE tenants SET suspended_at = now() WHERE tenant_id = %(home)s",
        403,
        "tenant_suspended",
    ),
}


def bar(database_url: str, home: str, user_id: str, how: str) -> None:
    with psycopg.connect(driver_url(database_url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [home])
        conn.execute(BARRED[how][0], {"home": home, "id": user_id})


async def warm(api: Api, headers: dict[str, str]) -> None:
    """Has the process remember them as what they are now."""
    assert (await api.client.get(USERS, headers=headers)).status_code == 200


@pytest.fixture
async def chaotic(settings: Settings) -> AsyncIterator[Api]:
    async with serving(settings.model_copy(update={"chaos_enabled": True})) as api:
        yield api


@pytest.mark.parametrize("how", BARRED)
async def test_a_change_asks_the_database_who_its_author_is(
    chaotic: Api, new_tenant: Callable[[], Awaitable[str]], how: str
) -> None:
    for method, path, body in CHANGES:
        tenant = await new_tenant()
        rogue, other = chaotic.headers(tenant, role="admin"), chaotic.add_user(tenant, "ops")
        await warm(chaotic, rogue)
        bar(chaotic.database_url, tenant, subject_of(rogue), how)
        url = path.format(self=subject_of(rogue), other=other)
        assert_problem(await chaotic.client.request(method, url, json=body, headers=rogue), *BARRED[how][1:])
        root = chaotic.headers(tenant, role="admin", home="*")
        assert [row for row in await audit(chaotic, root) if not row["action"].startswith("refuse.")] == []


@pytest.mark.parametrize("how", ["disabled", "without a role", "denied by a policy"])
async def test_a_global_administrator_is_asked_about_at_home(chaotic: Api, tenant: str, how: str) -> None:
    other = chaotic.add_user(tenant, "ops")
    for method, path, body in GLOBAL_CHANGES:
        rogue = chaotic.headers(tenant, role="admin", home="*")
        await warm(chaotic, rogue)
        bar(chaotic.database_url, "*", subject_of(rogue), how)
        url = path.format(self=subject_of(rogue), other=other)
        assert_problem(await chaotic.client.request(method, url, json=body, headers=rogue), *BARRED[how][1:])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "enable", None),
        ("PUT", "roles", {"roles": ["admin"]}),
        ("PUT", "roles", {"roles": ["admin", "ops", "sales"]}),
    ],
)
async def test_nobody_changes_their_own_rights(api: Api, tenant: str, method: str, path: str, body: Any) -> None:
    admin = api.headers(tenant, role="admin")
    url = f"{USERS}/{subject_of(admin)}"
    before = (await api.client.get(USERS, headers=admin)).json()
    assert_problem(await api.client.request(method, f"{url}/{path}", json=body, headers=admin), 403, "own_rights")
    assert (await api.client.get(USERS, headers=admin)).json() == before
    # Another administrator may.
    another = api.headers(tenant, role="admin")
    assert (await api.client.request(method, f"{url}/{path}", json=body, headers=another)).status_code == 200


async def test_nobody_widens_themselves_by_a_policy_that_names_them(api: Api, tenant: str) -> None:
    admin, another = api.headers(tenant, role="admin"), api.headers(tenant, role="admin")
    denied = {"effect": "deny", "actions": ["payments:write"], "subjects": [subject_of(admin)]}
    assert (await put(api, another, "not-they", denied)).status_code == 200
    for response in (
        await api.client.delete(f"{POLICIES}/not-they", headers=admin),
        await put(api, admin, "not-they", {"effect": "deny", "actions": ["ledger:read"], "roles": ["ops"]}),
        await put(api, admin, "but-i", {"effect": "allow", "subjects": [subject_of(admin)]}),
    ):
        assert_problem(response, 403, "own_rights")
    assert [policy["name"] for policy in (await api.client.get(POLICIES, headers=admin)).json()] == [
        "not-they",
        "what-roles-permit",
    ]
    # They may bind themselves, and others may free them.
    assert (await put(api, admin, "nor-this", denied | {"actions": ["ledger:read"]})).status_code == 200
    assert (await api.client.delete(f"{POLICIES}/not-they", headers=another)).status_code == 204


@pytest.mark.parametrize("change", ["disable", "roles"])
async def test_of_two_administrators_who_bar_each_other_at_once_one_stays(
    api: Api, tenant: str, other_process: httpx.AsyncClient, change: str
) -> None:
    for _ in range(5):
        one, two = api.headers(tenant, role="admin"), api.headers(tenant, role="admin")
        for client in (api.client, other_process):
            for headers in (one, two):
                assert (await client.get(USERS, headers=headers)).status_code == 200

        async def bar_each_other(client: httpx.AsyncClient, author: dict[str, str], other: dict[str, str]) -> int:
            url = f"{USERS}/{subject_of(other)}"
            if change == "disable":
                return (await client.post(f"{url}/disable", headers=author)).status_code
            return (await client.put(f"{url}/roles", json={"roles": []}, headers=author)).status_code

        statuses = await asyncio.gather(bar_each_other(api.client, one, two), bar_each_other(other_process, two, one))
        assert Counter(statuses) == {200: 1, 401 if change == "disable" else 403: 1}


async def test_a_change_and_the_end_of_its_authors_rights_take_turns(api: Api, tenant: str, owner: Database) -> None:
    """What began before the operator's change waits for it, and is then refused."""
    rogue = api.headers(tenant, role="admin")
    await warm(api, rogue)
    async with owner.transaction([tenant]) as conn:
        await lock_tenant(conn, tenant)
        change = asyncio.create_task(put(api, rogue, "new", DENY_ALL | {"roles": ["ops"]}))
        await asyncio.sleep(0.2)
        assert not change.done()
        await set_disabled(conn, tenant, UUID(subject_of(rogue)), True)
    assert_problem(await change, 401, "token_revoked")
