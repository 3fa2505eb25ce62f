"""POST /v1/auth/token and GET /v1/me."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from payments_ledger.access.attempts import NO_TENANT
from payments_ledger.access.caller import CallerRoute, current_identity
from payments_ledger.access.logins import LoginRoute, Logins, attempt_of
from payments_ledger.access.passwords import password_matches
from payments_ledger.access.queries import User, find_user, tenants_of_email
from payments_ledger.access.refusals import Claimed
from payments_ledger.access.tokens import Identity, Tokens
from payments_ledger.access.use_cases import Login, record_logins
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import BadCredentials
from payments_ledger.postgres.database import Database
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.validation.texts import WITHOUT_CONTROLS, Matching
from payments_ledger.web.exact_requests import Body
from payments_ledger.web.problems import BODY_PROBLEMS, documented

TENANT_ID = Matching(r"(\*|[A-Za-z0-9._:-]{1,64})", "must be 1 to 64 letters, digits and . _ : -, or *")

router = APIRouter(prefix="/v1", tags=["auth"], route_class=CallerRoute)
login_router = APIRouter(prefix="/v1", tags=["auth"], route_class=LoginRoute)

TENANT_ID = Matching(r"(\*|[A-Za-z0-9._:-]{1,64})", "must be 1 to 64 letters, digits and . _ : -, or *")


class Credentials(Body):
    """`email` is any address that the administrator chose, such as ops@demo."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={"examples": [{"email": "ops@demo", "password": "ops123", "tenantId": "tenant_demo"}]},
    )

    email: Annotated[str, StringConstraints(min_length=3, max_length=254, to_lower=True), WITHOUT_CONTROLS]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    tenant_id: Annotated[Annotated[str, TENANT_ID] | None, Field(alias="tenantId")] = None


class AccessToken(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"access_token": "eyJhbGciOiJIUzI1NiJ9.e30.x1Zk", "token_type": "Bearer", "expires_in": 3600}]
        }
    )

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int


class Me(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sub": "01a20568-0001-7000-8000-000000000001",
                    "tid": "tenant_demo",
                    "roles": ["ops"],
                    "perms": ["ledger:read", "payments:read", "payments:write"],
                    "plan": "pro",
                    "region": "region-a",
                }
            ]
        }
    )

    sub: str
    tid: str
    roles: list[str]
    perms: list[str]
    plan: str
    region: str


@login_router.post(
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
async def issue_token(request: Request, response: Response, credentials: Credentials) -> AccessToken:
    """Exchanges e-mail and password for a bearer token. Without tenantId the e-mail must belong to one tenant only.

    After 10 failures in a row from one network (an IPv4 address, an IPv6 /64) the e-mail address rests for it for 30
    minutes. After 100 failures in an hour, refused attempts included, it rests for everybody until the hour is over.
    """
    tokens: Tokens = request.app.state.tokens
    logins: Logins = request.app.state.logins
    # Whom a refusal will be put down to.
    request.state.claimed = Claimed(credentials.email, credentials.tenant_id)
    attempt = attempt_of(request, credentials.email, credentials.tenant_id)
    async with logins.turn(attempt):
        await logins.begin(attempt)
        user = await _find_user(request.app.state.database, credentials)
        if not await password_matches(credentials.password, user.password_hash if user else None) or user is None:
            await logins.fail(attempt)
            raise BadCredentials
        await logins.succeed(attempt, user.tenant_id)
    commands: GroupCommit = request.app.state.commands
    address = request.client.host if request.client else None
    # Before the token is given out: there is none without its row in the audit log.
    await commands.submit(record_logins, Login(user.tenant_id, Origin(str(user.id), address, current_trace())))
    response.headers["Cache-Control"] = "no-store"
    identity = Identity(
        subject=str(user.id),
        tenant_id=user.tenant_id,
        roles=tuple(user.roles),
        permissions=frozenset(user.permissions),
        plan=user.plan,
        region=user.region,
    )
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


async def _find_user(database: Database, credentials: Credentials) -> User | None:
    """Asks the same two questions whatever the answers are, so that their time tells nothing."""
    async with database.transaction() as conn:
        tenants = await tenants_of_email(conn, credentials.email)
    tenant_id = credentials.tenant_id or (tenants[0] if len(tenants) == 1 else NO_TENANT)
    async with database.transaction([tenant_id]) as conn:
        return await find_user(conn, tenant_id, credentials.email)
