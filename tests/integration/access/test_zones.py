"""Policies whose time zone this machine lacks, or would read differently from another one."""

import psycopg
import pytest

from payments_ledger.postgres.database import driver_url
from tests.integration.administration import DENY_ALL, NOBODY, POLICIES, audit, put, subject_of
from tests.integration.conftest import Api
from tests.integration.http import assert_problem, create

pytestmark = pytest.mark.anyio

LOST = "Mars/Olympus_Mons"


def hours(zone: str) -> dict[str, str]:
    return {"start": "00:00", "end": "00:01", "zone": zone}


def lose_its_zone(api: Api, tenant: str, name: str) -> None:
    """As if the policy had been written where more zones are known."""
    with psycopg.connect(driver_url(api.database_url)) as conn:
        conn.execute("SELECT set_config('payments_ledger.tenant_ids', %s, true)", [tenant])
        conn.execute("UPDATE policies SET hours_zone = %s WHERE tenant_id = %s AND name = %s", [LOST, tenant, name])


@pytest.mark.parametrize("effect", ["allow", "deny"])
async def test_a_policy_whose_zone_is_unknown_here_denies_and_can_be_listed_and_deleted(
    api: Api, tenant: str, effect: str
) -> None:
    root = api.headers(tenant, role="admin", home="*")
    terms = {"effect": effect, "hours": hours("Asia/Tokyo")}
    assert (await put(api, root, "hours", terms)).status_code == 200
    lose_its_zone(api, tenant, "hours")
    admin, ops = api.headers(tenant, role="admin"), api.headers(tenant)
    for response in (await create(api, ops), await api.client.get("/v1/ledger/balances", headers=ops)):
        assert_problem(response, 403, "policy_denied")
        assert "hours" in response.json()["detail"]
    # An administrator is bound by it, too, but for what mends it.
    assert_problem(await put(api, admin, "another", DENY_ALL), 403, "policy_denied")
    listed = (await api.client.get(POLICIES, headers=admin)).json()
    assert [policy["hours"] for policy in listed] == [hours(LOST), None]
    assert (await api.client.delete(f"{POLICIES}/hours", headers=admin)).status_code == 204
    assert (await create(api, ops)).status_code == 201
    [row] = await audit(api, admin, action="policy.delete")
    assert row["principal"] == subject_of(admin)
    assert row["detail"]["before"]["hours"]["zone"] == LOST


async def test_a_policy_whose_zone_is_unknown_binds_only_those_it_means(api: Api, tenant: str) -> None:
    admin, ops, sales = (api.headers(tenant, role=role) for role in ("admin", "ops", "sales"))
    terms = {"effect": "deny", "roles": ["sales"], "hours": hours("Asia/Tokyo")}
    assert (await put(api, admin, "hours", terms)).status_code == 200
    lose_its_zone(api, tenant, "hours")
    assert (await create(api, ops)).status_code == 201
    assert_problem(await api.client.get(f"/v1/payment-intents/{NOBODY}", headers=sales), 403, "policy_denied")


@pytest.mark.parametrize(
    "zone",
    [
        "localtime",
        "Factory",
        "posixrules",
        "posix/UTC",
        "posix/Asia/Tokyo",
        "right/UTC",
        "utc",
        "posix",
        "tzdata.zi",
        LOST,
    ],
)
async def test_a_zone_that_is_not_the_same_on_every_machine_is_refused(api: Api, tenant: str, zone: str) -> None:
    admin = api.headers(tenant, role="admin")
    response = await put(api, admin, "hours", {"effect": "deny", "roles": ["sales"], "hours": hours(zone)})
    assert_problem(response, 422, place="#/hours/zone")
