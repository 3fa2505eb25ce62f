"""A tenant's time zone: given when it is added, by an operator or by a message, and shown to its administrators."""

import json
from uuid import uuid4

import pytest

from payments_ledger.cli.session import operator
from payments_ledger.errors import Invalid
from payments_ledger.messaging.messages import DeadLetter, Message
from payments_ledger.operations.tenants import create_tenant, list_tenants
from payments_ledger.postgres.database import Database
from payments_ledger.tenants.consumer import read_tenant
from payments_ledger.tenants.use_cases import SynchronizeTenant, synchronize_tenants
from tests.integration.books import ORIGIN
from tests.integration.conftest import Api

pytestmark = pytest.mark.anyio


async def zone_of(owner: Database, tenant_id: str) -> str:
    [zone] = [tenant.zone for tenant in await list_tenants(owner) if tenant.id == tenant_id]
    return zone


async def synchronize(owner: Database, tenant_id: str, zone: str | None, *, updates: bool = False) -> None:
    command = SynchronizeTenant(tenant_id, None, None, None, zone, updates, False, ORIGIN)
    async with owner.transaction([tenant_id]) as conn:
        await synchronize_tenants(conn, [command])


async def test_an_operator_gives_a_tenant_its_zone(owner: Database) -> None:
    terms = {"name": "x", "plan": "x", "region": "x"}
    tenant_id = f"tenant-{uuid4()}"
    added = await create_tenant(owner, operator(), tenant_id=tenant_id, zone="Asia/Tokyo", **terms)
    assert added.zone == await zone_of(owner, tenant_id) == "Asia/Tokyo"
    with pytest.raises(Invalid, match="no IANA time zone"):
        await create_tenant(owner, operator(), tenant_id=f"tenant-{uuid4()}", zone="Asia/Tokio", **terms)


@pytest.mark.parametrize(("named", "zone"), [(None, "America/Sao_Paulo"), ("Europe/Lisbon", "Europe/Lisbon")])
async def test_a_message_gives_a_new_tenant_its_zone_and_changes_none(
    owner: Database, named: str | None, zone: str
) -> None:
    tenant_id = f"tenant-{uuid4()}"
    await synchronize(owner, tenant_id, named)
    assert await zone_of(owner, tenant_id) == zone
    await synchronize(owner, tenant_id, "Asia/Tokyo", updates=True)
    assert await zone_of(owner, tenant_id) == zone


def test_a_message_with_a_zone_that_there_is_not_is_a_dead_letter() -> None:
    def message(zone: str) -> Message:
        return Message("1", "tenant.created", json.dumps({"id": "acme", "zone": zone}).encode(), {})

    assert read_tenant(message("Europe/Lisbon"))[1].zone == "Europe/Lisbon"
    with pytest.raises(DeadLetter, match="zone"):
        read_tenant(message("Europe/Lisboa"))


async def test_administrators_see_the_zone(api: Api, tenant: str) -> None:
    headers = api.headers(tenant, role="admin", home="*")
    suspended = await api.client.post("/v1/admin/tenant/suspend", headers=headers)
    assert suspended.json()["zone"] == "UTC"
