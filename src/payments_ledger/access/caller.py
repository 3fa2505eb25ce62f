"""The caller of a tenant route: a verified token, the tenant it acts for, and what roles and policies let it do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from payments_ledger.access.access_cache import AccessCache, standing_of
from payments_ledger.access.policy import (
    Attempt,
    Permission,
    Policy,
    require_allowed,
    require_permission,
    require_tenant,
)
from payments_ledger.access.queries import TenantAccess
from payments_ledger.access.resources import Shared
from payments_ledger.access.tokens import Identity
from payments_ledger.commit.audit import Origin
from payments_ledger.errors import LedgerError, MissingHeader, Unauthenticated
from payments_ledger.money import Money
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.web.parameters import single_header
from payments_ledger.web.rate_limit import client_address

# What every tenant route can respond besides success.
TENANT_PROBLEMS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)

TenantId = Annotated[
    str, Header(alias="X-Tenant-Id", description="The tenant that the request is for", examples=["tenant_demo"])
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, the tenant they act for, where the request came from, and the policies that bind them.

    Roles and permissions of the identity are those of the database, not those of the token.
    """

    identity: Identity
    tenant_id: str
    origin: Origin
    tenant: TenantAccess
    policies: tuple[Policy, ...]

    def require(self, permission: Permission, money: Money | None = None, *, mends_policies: bool = False) -> None:
        """Raises PermissionDenied or PolicyDenied unless roles and policies allow this now.

        A route that moves an amount calls this once more as soon as it knows the amount.
        """
        require_permission(self.identity.permissions, permission)
        identity, tenant = self.identity, self.tenant
        attempt = Attempt(
            action=permission,
            subject=identity.subject,
            roles=frozenset(identity.roles),
            plan=tenant.plan,
            region=tenant.region,
            # By this process's clock.
            at=datetime.now(UTC),
            money=money,
            mends_policies=mends_policies,
        )
        require_allowed(self.policies, attempt)

    @property
    def is_bound_by_amounts(self) -> bool:
        """Whether it can depend on an amount what the caller may do."""
        return any(policy.amount for policy in self.policies)


class BearerToken(SecurityBase):
    """Reads whose token the Authorization header holds, and counts the request against a rate limit.

    Who cannot be identified is counted by address. Raises Unauthenticated, RepeatedHeader or RateLimited.
    """

    # As the OpenAPI document describes it.
    scheme_name = "HTTPBearer"
    model = HTTPBearer(description="A token of POST /v1/auth/token")

    async def __call__(self, request: Request, resources: Shared) -> Identity:
        limiter = resources.rate_limiter
        try:
            identity = resources.tokens.verify(_token_of(request))
        except LedgerError:
            await limiter.admit(request, f"address:{client_address(request)}")
            raise
        # By the token's own tenant: another X-Tenant-Id is no fresh quota.
        await limiter.admit(request, f"caller:{identity.tenant_id}:{identity.subject}")
        # A refusal further on is recorded as this user's.
        request.state.identity = identity
        return identity


def _token_of(request: Request) -> str:
    scheme, _, token = (single_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    return token


Identified = Annotated[Identity, Depends(BearerToken())]


def caller_with(permission: Permission, *, mends_policies: bool = False) -> Callable[..., Awaitable[Caller]]:
    """A dependency that admits callers who may do this for the tenant named in X-Tenant-Id."""

    async def admit(request: Request, identity: Identified, tenant_id: TenantId, resources: Shared) -> Caller:
        if not tenant_id:
            raise MissingHeader("X-Tenant-Id")
        require_tenant(identity, permission, tenant_id)
        caller = await _look_up(request, resources.access, identity, tenant_id)
        caller.require(permission, mends_policies=mends_policies)
        if permission is not Permission.ADMIN:
            # Never where it is switched off again.
            await resources.chaos.disturb(tenant_id, "request")
        return caller

    return admit


async def current_identity(request: Request, identity: Identified, resources: Shared) -> Identity:
    """The identity as the database has it now; raises TokenRevoked or TenantSuspended."""
    return (await _look_up(request, resources.access, identity, identity.tenant_id)).identity


async def _look_up(request: Request, access: AccessCache, identity: Identity, tenant_id: str) -> Caller:
    """The caller as the database has it; raises TokenRevoked, UnknownTenant or TenantSuspended."""
    home = identity.tenant_id
    user = await access.user(home, identity.subject)
    tenant = await access.tenant(tenant_id)
    at_home = tenant if home == tenant_id else await access.tenant(home)
    if user and at_home and tenant:
        # A refusal further on goes to this tenant's audit log.
        request.state.tenant_id = tenant_id
    standing = standing_of(user, at_home, tenant)
    address = request.client.host if request.client else None
    user, tenant = standing.user, standing.tenant
    return Caller(
        identity=Identity(identity.subject, home, user.roles, user.permissions, tenant.plan, tenant.region),
        tenant_id=tenant_id,
        origin=Origin(identity.subject, address, current_trace()),
        tenant=tenant,
        # A global administrator is bound by the policies of their own tenant, so that no tenant can lock them out.
        policies=standing.home.policies,
    )
