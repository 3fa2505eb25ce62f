"""Which types a pattern means, and which patterns mean nothing."""

import pytest

from payments_ledger.event_types import EVENT_TYPES
from payments_ledger.feed.patterns import EVERYTHING, Patterns

KNOWN = ("payment.settled", "payment.intent.created", "payments", "ledger.account.created")


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [
        (["payment.settled"], ["payment.settled"]),
        (["payment.*"], ["payment.settled", "payment.intent.created"]),
        (["payment.intent.*", "payments"], ["payment.intent.created", "payments"]),
        (["*"], list(KNOWN)),
        (["ledger.*", "payment.settled"], ["payment.settled", "ledger.account.created"]),
    ],
)
def test_what_patterns_match(patterns: list[str], matched: list[str]) -> None:
    wanted = Patterns.read(patterns, KNOWN)
    assert [name for name in KNOWN if name in wanted.names or name.startswith(wanted.prefixes)] == matched


@pytest.mark.parametrize(
    "pattern", ["", "payment", "payment.", "payment*", "*.settled", "payment.*.created", "**", "payment.**", "x.*", "X"]
)
def test_what_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"must be a type|matches no type"):
        Patterns.read([pattern], KNOWN)


def test_everything_is_what_a_star_means() -> None:
    assert Patterns.read(["*"], EVENT_TYPES) == EVERYTHING
