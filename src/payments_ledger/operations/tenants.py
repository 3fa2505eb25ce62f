"""Tenants in the operator's hands: list, add, suspend, resume."""

from payments_ledger.commit.audit import Origin
from payments_ledger.operations.administration import administer, operator_of
from payments_ledger.operations.roles import auditing
from payments_ledger.postgres.database import Database
from payments_ledger.tenants import queries
from payments_ledger.tenants.queries import Tenant
from payments_ledger.tenants.use_cases import AddTenant, SetTenantSuspended, add_tenant, set_tenant_suspended


async def list_tenants(owner: Database) -> list[Tenant]:
    """Raises Unavailable."""
    async with auditing(owner) as conn:
        return await queries.list_tenants(conn)


async def create_tenant(
    owner: Database, origin: Origin, *, tenant_id: str, name: str, plan: str, region: str, zone: str
) -> Tenant:
    """Raises TenantExists, Unavailable, or Invalid of the zone."""
    return await administer(owner, add_tenant, AddTenant(tenant_id, name, plan, region, zone, operator_of(origin)))


async def suspend_tenant(owner: Database, origin: Origin, tenant_id: str, *, suspended: bool) -> Tenant:
    """Suspends the tenant, or resumes it. Raises UnknownTenant, WouldLockOutAdministrator or Unavailable."""
    command = SetTenantSuspended(tenant_id, suspended, operator_of(origin))
    return await administer(owner, set_tenant_suspended, command)
