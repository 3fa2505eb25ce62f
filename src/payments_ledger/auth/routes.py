"""POST /v1/auth/token and GET /v1/me."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from payments_ledger.auth.caller import current_identity
from payments_ledger.auth.passwords import password_matches
from payments_ledger.auth.queries import User, find_user, tenants_of_email
from payments_ledger.auth.refusals import Claimed
from payments_ledger.auth.tokens import Identity, Tokens
from payments_ledger.errors import BadCredentials
from payments_ledger.platform.exact_json import ExactJSONRoute
from payments_ledger.platform.postgres import Database
from payments_ledger.platform.problems import documented

router = APIRouter(prefix="/v1", tags=["auth"], route_class=ExactJSONRoute)


class Credentials(BaseModel):
    """`email` is any address that the administrator chose, such as ops@demo."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    email: Annotated[str, StringConstraints(min_length=3, max_length=254, to_lower=True, pattern=r"^[^\x00-\x1f]+$")]
    password: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    tenant_id: Annotated[str | None, Field(alias="tenantId", pattern=r"^(\*|[A-Za-z0-9._:-]{1,64})$")] = None


class AccessToken(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int


class Me(BaseModel):
    sub: str
    tid: str
    roles: list[str]
    perms: list[str]
    plan: str
    region: str


@router.post(
    "/auth/token",
    responses=documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def issue_token(request: Request, response: Response, credentials: Credentials) -> AccessToken:
    """Exchanges e-mail and password for a bearer token. Without tenantId the e-mail must belong to one tenant only."""
    tokens: Tokens = request.app.state.tokens
    # Whom a refusal will be put down to.
    request.state.claimed = Claimed(credentials.email, credentials.tenant_id)
    user = await _find_user(request.app.state.database, credentials)
    if not await password_matches(credentials.password, user.password_hash if user else None) or user is None:
        raise BadCredentials
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
    responses=documented(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE
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
    tenant_id = credentials.tenant_id
    if tenant_id is None:
        async with database.transaction() as conn:
            tenants = await tenants_of_email(conn, credentials.email)
        if len(tenants) != 1:
            return None
        tenant_id = tenants[0]
    async with database.transaction([tenant_id]) as conn:
        return await find_user(conn, tenant_id, credentials.email)
