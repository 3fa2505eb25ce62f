"""The caller of a tenant route: a verified token, the tenant it acts for, and what roles and policies let it do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer

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
from payments_ledger.access.tokens import Identity, Tokens
from payments_ledger.chaos.faults import Chaos
from payments_ledger.commit.audit import Origin
from payments_ledger.errors import (
    LedgerError,
    MissingHeader,
    Unauthenticated,
)
from payments_ledger.money import Money
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.web.exact_requests import ExactJSONRoute, single_header
from payments_ledger.web.rate_limit import RateLimiter, client_address

# What every tenant route can answer besides success.
TENANT_PROBLEMS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)

# Only documents the scheme; the header is read below, so that its errors are problem documents like all others.
_bearer = HTTPBearer(auto_error=False, description="A token of POST /v1/auth/token")


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


class CallerRoute(ExactJSONRoute):
    """A route that knows its caller, and has counted the request, before it reads anything else of it."""

    async def admit(self, request: Request) -> None:
        await identify(request)


async def identify(request: Request) -> Identity:
    """The identity in the Authorization header, counted against its rate limit once a request.

    Who cannot be identified is counted by address. Raises Unauthenticated, RepeatedHeader or RateLimited.
    """
    known: Identity | None = getattr(request.state, "identity", None)
    if known is not None:
        return known
    limiter: RateLimiter = request.app.state.rate_limiter
    try:
        identity = _verified(request)
    except LedgerError:
        await limiter.admit(request, f"address:{client_address(request)}")
        raise
    # By the token's own tenant: another X-Tenant-Id is no fresh quota.
    await limiter.admit(request, f"caller:{identity.tenant_id}:{identity.subject}")
    # Whom a refusal further on will be put down to.
    request.state.identity = identity
    return identity


async def admit(request: Request, permission: Permission, *, mends_policies: bool = False) -> Caller:
    """The caller, who may do this for the tenant named in X-Tenant-Id."""
    identity = await identify(request)
    tenant_id = single_header(request, "X-Tenant-Id")
    if not tenant_id:
        raise MissingHeader("X-Tenant-Id")
    require_tenant(identity, permission, tenant_id)
    caller = await _look_up(request, identity, tenant_id)
    caller.require(permission, mends_policies=mends_policies)
    if permission is not Permission.ADMIN:
        # Never where it is switched off again.
        chaos: Chaos = request.app.state.chaos
        await chaos.disturb(tenant_id, "request")
    return caller


async def tenant_headers(
    _scheme: Annotated[object, Depends(_bearer)],
    _tenant: Annotated[
        str,
        Header(alias="X-Tenant-Id", description="The tenant that the request is for", examples=["tenant_demo"]),
    ],
) -> None:
    """What every tenant route reads of a request, for the document; `admit` does, where none may occur twice.

    It waits for nothing, but FastAPI would hand a plain function to another thread.
    """


def caller_with(permission: Permission, *, mends_policies: bool = False) -> Callable[..., Awaitable[Caller]]:
    """A dependency that admits callers who may do this for the tenant named in X-Tenant-Id."""

    async def admitted(request: Request, _headers: Annotated[None, Depends(tenant_headers)]) -> Caller:
        return await admit(request, permission, mends_policies=mends_policies)

    return admitted


async def current_identity(request: Request, _scheme: Annotated[object, Depends(_bearer)]) -> Identity:
    """The identity as the database has it now; raises Unauthenticated or TenantSuspended."""
    identity = await identify(request)
    return (await _look_up(request, identity, identity.tenant_id)).identity


def _verified(request: Request) -> Identity:
    scheme, _, token = (single_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    tokens: Tokens = request.app.state.tokens
    return tokens.verify(token)


async def _look_up(request: Request, identity: Identity, tenant_id: str) -> Caller:
    """The caller as the database has it; raises TokenRevoked, UnknownTenant or TenantSuspended."""
    access: AccessCache = request.app.state.access
    home = identity.tenant_id
    user = await access.user(home, identity.subject)
    tenant = await access.tenant(tenant_id)
    at_home = tenant if home == tenant_id else await access.tenant(home)
    if user and at_home and tenant:
        # Whose audit log a refusal further on goes to.
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
