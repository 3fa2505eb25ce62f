"""A token of ours says who its bearer is; anything else is refused."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from payments_ledger.access.tokens import Identity, Tokens
from payments_ledger.errors import Unauthenticated

SECRET = "a secret of more than thirty-two bytes"
TOKENS = Tokens(secret=SECRET, issuer="here", lifetime_seconds=3600)
IDENTITY = Identity("s", "t", ("ops",), frozenset({"payments:read"}), "pro", "region-a")


def claims(**changes: Any) -> dict[str, Any]:
    known = jwt.decode(TOKENS.issue(IDENTITY), options={"verify_signature": False})
    return {name: value for name, value in {**known, **changes}.items() if value is not None}


def signed(
    payload: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None
) -> str:
    """By hand: the library would refuse to write most of what others may send."""
    head = {"alg": algorithm, "typ": "JWT"} | (headers or {})
    content = f"{part(head)}.{part(payload)}"
    digest = hmac.digest(secret.encode(), content.encode(), f"sha{algorithm[2:]}")
    return f"{content}.{encoded(digest)}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def part(value: object) -> str:
    return encoded(json.dumps(value).encode())


def unsigned(payload: dict[str, Any]) -> str:
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(payload)}."


def test_an_issued_token_is_read_back() -> None:
    assert TOKENS.verify(TOKENS.issue(IDENTITY)) == IDENTITY


LONG_AGO = int((datetime.now(UTC) - timedelta(hours=2)).timestamp())
LATER = LONG_AGO + 3 * 3600


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(claims(), secret="another secret of more than 32 bytes"), id="another secret"),
        pytest.param(signed(claims(), secret=SECRET * 2, algorithm="HS512"), id="another algorithm"),
        pytest.param(unsigned(claims()), id="no signature"),
        pytest.param(signed(claims(iss="elsewhere")), id="another issuer"),
        pytest.param(signed(claims(exp=LONG_AGO)), id="expired"),
        pytest.param(signed(claims(nbf=LATER)), id="not yet valid"),
        *(
            pytest.param(signed(claims(**{name: None})), id=f"no {name}")
            for name in ("exp", "iss", "sub", "jti", "tid")
        ),
        *(pytest.param(signed(claims(**{name: None})), id=f"no {name}") for name in ("roles", "perms", "plan")),
        *(
            pytest.param(signed(claims(**{name: value})), id=f"{name} is {value!r}")
            for name, value in (
                ("sub", ["s"]),
                ("sub", 1),
                ("sub", ""),
                ("sub", {"s": 1}),
                ("tid", 1),
                ("tid", ["t"]),
                ("tid", True),
                ("jti", 7),
                ("roles", "ops"),
                ("roles", [1]),
                ("perms", "payments:write"),
                ("perms", {"payments:write": True}),
                ("perms", [["payments:write"]]),
                ("plan", 1),
                ("region", ["region-a"]),
                ("iss", ["here"]),
                ("aud", "somebody else"),
                ("exp", "9999999999"),
                ("exp", float("inf")),
                ("exp", True),
                ("exp", [9999999999]),
                ("iat", "soon"),
                ("nbf", {}),
            )
        ),
        *(
            pytest.param(signed(claims(), headers={"kid": key_id}), id=f"kid is {key_id!r}")
            for key_id in ("", "another", "../../dev/null", "' OR 1=1 --", "x" * 5000)
        ),
        pytest.param(signed(claims(), headers={"crit": ["exp"]}), id="a critical header that nobody knows"),
        pytest.param(signed(claims(), headers={"alg": "RS256"}), id="another algorithm named than used"),
        pytest.param(f"{part({'alg': 'HS256', 'kid': ['a']})}.{part(claims())}.x", id="kid is a list"),
        pytest.param(f"{encoded(b'[' * 5000)}.{part(claims())}.x", id="a header nested without end"),
        pytest.param(f"{encoded(b'7')}.{part(claims())}.x", id="a header that is no object"),
        pytest.param(signed(claims(plan="x" * 10_000)), id="endless"),
        pytest.param(TOKENS.issue(IDENTITY)[:-3], id="truncated"),
        pytest.param("", id="empty"),
        pytest.param("no token", id="no token"),
        pytest.param("ö.ü.ä", id="not ASCII"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS.verify(token)


def test_a_token_made_elsewhere_with_our_secret_is_read() -> None:
    assert TOKENS.verify(signed(claims())) == IDENTITY


def test_a_new_secret_logs_nobody_out_until_the_old_one_is_taken_away() -> None:
    new = "another secret of more than thirty-two bytes"
    rotated = Tokens(secret=new, secrets_previous=[SECRET], issuer="here", lifetime_seconds=3600)
    assert rotated.verify(TOKENS.issue(IDENTITY)) == IDENTITY
    assert rotated.verify(rotated.issue(IDENTITY)) == IDENTITY
    done = Tokens(secret=new, issuer="here", lifetime_seconds=3600)
    assert done.verify(rotated.issue(IDENTITY)) == IDENTITY
    for old, tokens in ((TOKENS, done), (rotated, TOKENS)):
        with pytest.raises(Unauthenticated):
            tokens.verify(old.issue(IDENTITY))


def test_a_token_counts_only_for_its_audience() -> None:
    ours = Tokens(secret=SECRET, issuer="here", audience="ledger", lifetime_seconds=3600)
    assert ours.verify(ours.issue(IDENTITY)) == IDENTITY
    assert ours.verify(signed(claims(aud=["others", "ledger"]))) == IDENTITY
    for tokens, token in (
        (ours, TOKENS.issue(IDENTITY)),
        (ours, signed(claims(aud="others"))),
        (ours, signed(claims(aud=7))),
        (TOKENS, ours.issue(IDENTITY)),
    ):
        with pytest.raises(Unauthenticated):
            tokens.verify(token)


@pytest.mark.parametrize(("seconds_ago", "accepted"), [(30, True), (61, False), (120, False)])
def test_clocks_may_differ_by_a_minute(seconds_ago: int, accepted: bool) -> None:
    token = signed(claims(exp=int(datetime.now(UTC).timestamp()) - seconds_ago))
    if accepted:
        assert TOKENS.verify(token) == IDENTITY
    else:
        with pytest.raises(Unauthenticated, match="expired"):
            TOKENS.verify(token)
