"""Bearer tokens: JWTs (RFC 7519) with one pinned algorithm and every claim required, after RFC 8725."""

import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt

from payments_ledger.errors import Unauthenticated

ALGORITHM = "HS256"
LEEWAY_SECONDS_MAX = 60
REQUIRED_CLAIMS = ("exp", "iss", "sub", "jti", "tid")
# Several times what a token of many roles needs.
TOKEN_LENGTH_MAX = 8192
# Tokens that one process knows to be genuine, some 20 MB of them; the one verified longest ago gives way.
VERIFIED_MAX = 10_000

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


@dataclass(frozen=True, slots=True)
class _Verified:
    """Whom a genuine token speaks of, and until when (seconds since 1970, as the claim says)."""

    identity: Identity
    expires_at: float


class Tokens:
    """Signs with one secret and verifies with any of several, so that a change of the secret logs nobody out."""

    def __init__(
        self,
        *,
        secret: str,
        issuer: str,
        lifetime_seconds: int,
        secrets_previous: Sequence[str] = (),
        audience: str | None = None,
    ) -> None:
        self._secret = secret
        self._secret_by_key_id = {_key_id(each): each for each in (*secrets_previous, secret)}
        self._issuer = issuer
        self._audience = audience
        self._leeway_seconds = min(LEEWAY_SECONDS_MAX, lifetime_seconds)
        # What was verified once stays verified until it expires. To verify each time took a seventh of a request's time
        # (ADR 33); delete this when it takes no more than the noise, a twentieth.
        self._verified: dict[str, _Verified] = {}
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
        if self._audience:
            claims["aud"] = self._audience
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, headers={"kid": _key_id(self._secret)})

    def verify(self, token: str) -> Identity:
        """The identity that a token of ours speaks of; raises Unauthenticated."""
        known = self._verified.get(token)
        if known is not None and time.time() < known.expires_at + self._leeway_seconds:
            return known.identity
        verified = self._verify(token)
        if len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = verified
        return verified.identity

    def _verify(self, token: str) -> "_Verified":
        try:
            claims = jwt.decode(
                token,
                self._secret_of(token),
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_seconds,
                options={"require": [*REQUIRED_CLAIMS, *(["aud"] if self._audience else [])]},
            )
            return _Verified(_identity(claims), claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The bearer token has expired.") from None
        # RecursionError: JSON nested without end; OverflowError: an instant beyond all calendars.
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
            raise Unauthenticated("The bearer token is not valid.") from None

    def _secret_of(self, token: str) -> str:
        """The secret that the token's header names. It only chooses among ours: nothing is fetched, nothing opened."""
        if len(token) > TOKEN_LENGTH_MAX:
            raise ValueError
        key_id = jwt.get_unverified_header(token).get("kid")
        # Tokens from before the secrets had names carry none.
        return self._secret if key_id is None else self._secret_by_key_id[key_id]


def _identity(claims: Mapping[str, Any]) -> Identity:
    """Raises ValueError for a claim of another type than ours, however well it is signed."""
    for name in ("exp", "iat", "nbf"):
        if name in claims and (isinstance(claims[name], bool) or not isinstance(claims[name], int | float)):
            raise ValueError(name)
    _text(claims["jti"])
    return Identity(
        subject=_text(claims["sub"]),
        tenant_id=_text(claims["tid"]),
        roles=_texts(claims["roles"]),
        permissions=frozenset(_texts(claims["perms"])),
        plan=_text(claims["plan"]),
        region=_text(claims["region"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_text, value))


def _key_id(secret: str) -> str:
    """A name for the secret, the same in every process. It tells no more of it than any signed token does."""
    return hmac.digest(secret.encode(), b"key id", "sha256").hex()[:16]
