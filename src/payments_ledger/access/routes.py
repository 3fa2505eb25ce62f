"""POST /v1/auth/token and GET /v1/me."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from payments_ledger.access.attempts import NO_TENANT
from payments_ledger.access.caller import current_identity
from payments_ledger.access.logins import Logins, attempt_of
from payments_ledger.access.passwords import password_matches
from payments_ledger.access.queries import EnabledUser, find_user, tenants_of_email
from payments_ledger.access.refusals import Claimed
from payments_ledger.access.resources import Shared
from payments_ledger.access.schemas import AccessToken, Credentials, Me
from payments_ledger.access.tokens import Identity
from payments_ledger.access.use_cases import Login, record_logins
from payments_ledger.commit.audit import Origin
from payments_ledger.errors import BadCredentials
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.web.problems import BODY_PROBLEMS, documented
from payments_ledger.web.routes import Route

router = APIRouter(prefix="/v1", tags=["auth"], route_class=Route)


async def counting_logins(request: Request, resources: Shared) -> Logins:
    """The logins, which have counted the request by its address before anything else of it is read."""
    await resources.logins.admit(request)
    return resources.logins


@router.post(
    "/auth/token",
    summary="Get a token for an e-mail address and its password",
    responses=documented(
        *BODY_PROBLEMS,
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def issue_token(
    logins: Annotated[Logins, Depends(counting_logins)],
    credentials: Credentials,
    request: Request,
    resources: Shared,
) -> AccessToken:
    """Exchanges e-mail and password for a bearer token. Without tenantId the e-mail must belong to one tenant only.

    After 10 failures in a row from one network (an IPv4 address, an IPv6 /64) the e-mail address is locked out
    there for 30 minutes. After 100 failures in an hour, refused attempts included, it is locked out everywhere until
    the hour is over.
    """
    # A refusal is recorded as one of this address and tenant.
    request.state.claimed = Claimed(credentials.email, credentials.tenant_id)
    attempt = attempt_of(request, credentials.email, credentials.tenant_id)
    async with logins.turn(attempt):
        await logins.begin(attempt)
        user = await _find_user(resources.database, credentials)
        if not await password_matches(credentials.password, user.password_hash if user else None) or user is None:
            await logins.fail(attempt)
            raise BadCredentials
        await logins.succeed(attempt, user.tenant_id)
    address = request.client.host if request.client else None
    login = Login(user.tenant_id, Origin(str(user.id), address, current_trace()))
    # Before the token is given out: there is none without its row in the audit log.
    await resources.commands.submit(record_logins, login)
    identity = Identity(
        subject=str(user.id),
        tenant_id=user.tenant_id,
        roles=tuple(user.roles),
        permissions=frozenset(user.permissions),
        plan=user.plan,
        region=user.region,
    )
    tokens = resources.tokens
    return AccessToken(access_token=tokens.issue(identity), expires_in=tokens.lifetime_seconds)


@router.get(
    "/me",
    summary="Show the caller",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def get_me(identity: Annotated[Identity, Depends(current_identity)]) -> Me:
    """Who the bearer of the token is and what their roles permit, as of at most two seconds ago."""
    return Me(
        sub=identity.subject,
        tid=identity.tenant_id,
        roles=list(identity.roles),
        perms=sorted(identity.permissions),
        plan=identity.plan,
        region=identity.region,
    )


async def _find_user(database: Database, credentials: Credentials) -> EnabledUser | None:
    """The same two queries whatever their results, so that their time reveals nothing."""
    async with database.transaction() as conn:
        tenants = await tenants_of_email(conn, credentials.email)
    tenant_id = credentials.tenant_id or (tenants[0] if len(tenants) == 1 else NO_TENANT)
    async with database.transaction([tenant_id]) as conn:
        return await find_user(conn, tenant_id, credentials.email)
