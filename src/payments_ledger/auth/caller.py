"""The caller of a tenant route: a verified token, the tenant it acts for, and the permission that the route needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer

from payments_ledger.audit import Origin
from payments_ledger.auth.policy import Permission, require_permission
from payments_ledger.auth.tokens import EVERY_TENANT, Identity, Tokens
from payments_ledger.errors import LedgerError, MissingHeader, RepeatedHeader, Unauthenticated, UnknownTenant
from payments_ledger.platform.exact_json import ExactJSONRoute
from payments_ledger.platform.postgres import Database
from payments_ledger.platform.rate_limit import RateLimiter, client_address
from payments_ledger.platform.tracing import current_trace
from payments_ledger.tenants.queries import tenant_exists

# Only documents the scheme; the header is read below, so that its errors are problem documents like all others.
_bearer = HTTPBearer(auto_error=False, description="A token of POST /v1/auth/token")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, the tenant they act for, and where the request came from."""

    identity: Identity
    tenant_id: str
    origin: Origin


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
    request.state.identity = identity
    return identity


def caller_with(permission: Permission) -> Callable[..., Awaitable[Caller]]:
    """A dependency that admits callers with the permission, for the tenant named in X-Tenant-Id."""

    async def admit(
        request: Request,
        _scheme: Annotated[object, Depends(_bearer)],
        _tenant: Annotated[str | None, Header(alias="X-Tenant-Id", description="Required")] = None,
    ) -> Caller:
        identity = await identify(request)
        tenant_id = single_header(request, "X-Tenant-Id")
        if not tenant_id:
            raise MissingHeader("X-Tenant-Id is missing.")
        require_permission(identity, permission, tenant_id)
        if identity.tenant_id == EVERY_TENANT and not await _exists(request, tenant_id):
            raise UnknownTenant
        address = request.client.host if request.client else None
        return Caller(identity, tenant_id, Origin(identity.subject, address, current_trace()))

    return admit


def single_header(request: Request, name: str) -> str | None:
    """A header's value, None without one; raises RepeatedHeader."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise RepeatedHeader(f"{name} was sent {len(values)} times.")
    return values[0] if values else None


def _verified(request: Request) -> Identity:
    scheme, _, token = (single_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    tokens: Tokens = request.app.state.tokens
    return tokens.verify(token)


async def _exists(request: Request, tenant_id: str) -> bool:
    # No tenant's id has a comma; the list of a transaction's tenants is separated by them.
    if "," in tenant_id:
        return False
    database: Database = request.app.state.database
    async with database.transaction([tenant_id]) as conn:
        return await tenant_exists(conn, tenant_id)
