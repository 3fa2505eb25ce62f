"""Logins, tokens and callers as they stand in requests and responses."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from payments_ledger.validation.texts import WITHOUT_CONTROLS, Matching
from payments_ledger.web.bodies import Body

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
    """`access_token` is a JWT (RFC 7519), to be sent as a bearer token (RFC 6750) for `expires_in` seconds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"access_token": "eyJhbGciOiJIUzI1NiJ9.e30.x1Zk", "token_type": "Bearer", "expires_in": 3600}]
        }
    )

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int


class Me(BaseModel):
    """`sub` is the user's id, `tid` the tenant; `perms` is what the roles permit, before policies."""

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
