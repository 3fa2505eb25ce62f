"""A token of ours says who its bearer is; anything else is refused."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from payments_ledger.auth.tokens import Identity, Tokens
from payments_ledger.errors import Unauthenticated

SECRET = "a secret of more than thirty-two bytes"
TOKENS = Tokens(secret=SECRET, issuer="here", lifetime_seconds=3600)
IDENTITY = Identity("s", "t", ("ops",), frozenset({"payments:read"}), "pro", "region-a")


def claims(**changes: Any) -> dict[str, Any]:
    known = jwt.decode(TOKENS.issue(IDENTITY), options={"verify_signature": False})
    return {name: value for name, value in {**known, **changes}.items() if value is not None}


def signed(payload: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, secret, algorithm=algorithm)


def unsigned(payload: dict[str, Any]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(payload)}."


def test_an_issued_token_is_read_back() -> None:
    assert TOKENS.verify(TOKENS.issue(IDENTITY)) == IDENTITY


LONG_AGO = datetime.now(UTC) - timedelta(hours=2)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(claims(), secret="another secret of more than 32 bytes"), id="another secret"),
        pytest.param(signed(claims(), secret=SECRET * 2, algorithm="HS512"), id="another algorithm"),
        pytest.param(unsigned(claims()), id="no signature"),
        pytest.param(signed(claims(iss="elsewhere")), id="another issuer"),
        pytest.param(signed(claims(exp=LONG_AGO)), id="expired"),
        pytest.param(signed(claims(nbf=datetime.now(UTC) + timedelta(hours=1))), id="not yet valid"),
        *(
            pytest.param(signed(claims(**{name: None})), id=f"no {name}")
            for name in ("exp", "iss", "sub", "jti", "tid")
        ),
        *(pytest.param(signed(claims(**{name: None})), id=f"no {name}") for name in ("roles", "perms", "plan")),
        pytest.param(TOKENS.issue(IDENTITY)[:-3], id="truncated"),
        pytest.param("", id="empty"),
        pytest.param("no token", id="no token"),
        pytest.param("ö.ü.ä", id="not ASCII"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.verify(token)
