"""Bearer tokens: JWTs (RFC 7519) with one pinned algorithm and every claim required, after RFC 8725."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt

from payments_ledger.errors import Unauthenticated

ALGORITHM = "HS256"
LEEWAY_SECONDS_MAX = 60

# The tenant of global administrators, who may name any existing tenant.
EVERY_TENANT = "*"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token speaks of; `tenant_id` is the token's own tenant, or * for a global administrator."""

    subject: str
    tenant_id: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    plan: str
    region: str


class Tokens:
    def __init__(self, *, secret: str, issuer: str, lifetime_seconds: int) -> None:
        self._secret = secret
        self._issuer = issuer
        self.lifetime_seconds = lifetime_seconds

    def issue(self, identity: Identity) -> str:
        now = datetime.now(UTC)
        claims = {
            "iss": self._issuer,
            "sub": identity.subject,
            "jti": str(uuid4()),
            "iat": now,
            "exp": now + timedelta(seconds=self.lifetime_seconds),
            "tid": identity.tenant_id,
            "roles": list(identity.roles),
            "perms": sorted(identity.permissions),
            "plan": identity.plan,
            "region": identity.region,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: str) -> Identity:
        """The identity that a token of ours speaks of; raises Unauthenticated."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                leeway=min(LEEWAY_SECONDS_MAX, self.lifetime_seconds),
                options={"require": ["exp", "iss", "sub", "jti", "tid"]},
            )
            return Identity(
                subject=claims["sub"],
                tenant_id=str(claims["tid"]),
                roles=tuple(claims["roles"]),
                permissions=frozenset(claims["perms"]),
                plan=claims["plan"],
                region=claims["region"],
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The bearer token has expired.") from None
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            raise Unauthenticated("The bearer token is not valid.") from None
