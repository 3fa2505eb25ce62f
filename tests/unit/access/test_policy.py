"""May this caller do this for this tenant? One row for each answer."""

from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.access.policy import (
    DEFAULT_POLICIES,
    ROLE_PERMISSIONS,
    AmountRange,
    Attempt,
    DailyHours,
    Effect,
    Permission,
    Policy,
    Verdict,
    decide,
    require_permission,
    require_tenant,
)
from payments_ledger.access.tokens import Identity
from payments_ledger.errors import Forbidden, PermissionDenied, WrongTenant
from payments_ledger.money import Money


def identity(tenant_id: str, role: str) -> Identity:
    return Identity("s", tenant_id, (role,), frozenset(ROLE_PERMISSIONS[role]), "pro", "region-a")


@pytest.mark.parametrize(
    ("home", "role", "permission", "tenant_id", "refusal"),
    [
        ("a", "ops", Permission.PAYMENTS_WRITE, "a", None),
        ("a", "ops", Permission.PAYMENTS_READ, "a", None),
        ("a", "ops", Permission.LEDGER_READ, "a", None),
        ("a", "ops", Permission.ADMIN, "a", PermissionDenied),
        ("a", "sales", Permission.PAYMENTS_READ, "a", None),
        ("a", "sales", Permission.PAYMENTS_WRITE, "a", PermissionDenied),
        ("a", "sales", Permission.LEDGER_READ, "a", PermissionDenied),
        ("a", "ops", Permission.PAYMENTS_READ, "b", WrongTenant),
        ("a", "ops", Permission.PAYMENTS_READ, "*", WrongTenant),
        ("a", "admin", Permission.ADMIN, "a", None),
        ("a", "admin", Permission.ADMIN, "*", WrongTenant),
        ("*", "admin", Permission.ADMIN, "a", None),
        ("*", "admin", Permission.PAYMENTS_WRITE, "b", None),
        ("*", "admin", Permission.ADMIN, "*", None),
        ("*", "admin", Permission.PAYMENTS_WRITE, "*", WrongTenant),
        ("*", "sales", Permission.PAYMENTS_WRITE, "a", PermissionDenied),
    ],
)
def test_who_may_do_what_for_whom(
    home: str, role: str, permission: Permission, tenant_id: str, refusal: type[Forbidden] | None
) -> None:
    def ask() -> None:
        caller = identity(home, role)
        require_tenant(caller, permission, tenant_id)
        require_permission(caller.permissions, permission)

    if refusal is None:
        ask()
    else:
        with pytest.raises(refusal):
            ask()


SAO_PAULO = ZoneInfo("America/Sao_Paulo")  # three hours behind UTC, all year
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
CREATE = Attempt(
    action=Permission.PAYMENTS_WRITE,
    subject="anna",
    roles=frozenset({"ops"}),
    plan="pro",
    region="region-a",
    at=NOON,
    money=Money(100_000, "BRL"),
)
READ = replace(CREATE, action=Permission.PAYMENTS_READ, money=None)
NOT_YET = replace(CREATE, money=None)

ALL = Policy("all", Effect.ALLOW)
WRITES = frozenset({"payments:write"})
UP_TO_1000 = Policy("small", Effect.ALLOW, actions=WRITES, amount=AmountRange("BRL", maximum=100_000))
NO_MORE = Policy("large", Effect.DENY, actions=WRITES, amount=AmountRange("BRL", minimum=100_001))
OFFICE = DailyHours(time(9), time(18), SAO_PAULO)
NIGHT = DailyHours(time(22), time(6), SAO_PAULO)


def allow(**conditions: object) -> Policy:
    return replace(Policy("p", Effect.ALLOW), **conditions)  # type: ignore[arg-type]


def deny(**conditions: object) -> Policy:
    return replace(Policy("p", Effect.DENY), **conditions)  # type: ignore[arg-type]


def names(*values: str) -> frozenset[str]:
    return frozenset(values)


@pytest.mark.parametrize(
    ("policies", "attempt", "verdict"),
    [
        # No policy means no, deny wins in either order, the first that allows is named.
        ((), CREATE, Verdict(False, None)),
        (DEFAULT_POLICIES, CREATE, Verdict(True, "what-roles-permit")),
        ((ALL, deny()), CREATE, Verdict(False, "p")),
        ((deny(), ALL), CREATE, Verdict(False, "p")),
        ((ALL, allow()), CREATE, Verdict(True, "all")),
        # Each condition alone: met, and not met.
        ((allow(actions=WRITES),), CREATE, Verdict(True, "p")),
        ((allow(actions=WRITES),), READ, Verdict(False, None)),
        ((allow(roles=names("ops", "admin")),), CREATE, Verdict(True, "p")),
        ((allow(roles=names("sales")),), CREATE, Verdict(False, None)),
        ((allow(roles=names("ops")),), replace(CREATE, roles=frozenset()), Verdict(False, None)),
        ((allow(subjects=names("anna")),), CREATE, Verdict(True, "p")),
        ((allow(subjects=names("bert")),), CREATE, Verdict(False, None)),
        ((allow(plans=names("pro")),), CREATE, Verdict(True, "p")),
        ((allow(plans=names("free")),), CREATE, Verdict(False, None)),
        ((allow(regions=names("region-a")),), CREATE, Verdict(True, "p")),
        ((allow(regions=names("region-b")),), CREATE, Verdict(False, None)),
        ((ALL, deny(actions=WRITES)), CREATE, Verdict(False, "p")),
        ((ALL, deny(actions=WRITES)), READ, Verdict(True, "all")),
        ((ALL, deny(roles=names("ops"))), CREATE, Verdict(False, "p")),
        ((ALL, deny(subjects=names("anna"))), CREATE, Verdict(False, "p")),
        ((ALL, deny(plans=names("pro"))), CREATE, Verdict(False, "p")),
        ((ALL, deny(regions=names("region-a"))), CREATE, Verdict(False, "p")),
        # Conditions of one policy must all be met.
        ((allow(roles=names("ops"), plans=names("free")),), CREATE, Verdict(False, None)),
        ((ALL, deny(roles=names("ops"), regions=names("region-b"))), CREATE, Verdict(True, "all")),
        # Amounts: both bounds count as inside, another currency is not meant.
        ((UP_TO_1000,), CREATE, Verdict(True, "small")),
        ((UP_TO_1000,), replace(CREATE, money=Money(100_001, "BRL")), Verdict(False, None)),
        ((UP_TO_1000,), replace(CREATE, money=Money(1, "USD")), Verdict(False, None)),
        ((ALL, NO_MORE), CREATE, Verdict(True, "all")),
        ((ALL, NO_MORE), replace(CREATE, money=Money(100_001, "BRL")), Verdict(False, "large")),
        ((ALL, NO_MORE), replace(CREATE, money=Money(100_001, "JPY")), Verdict(True, "all")),
        ((allow(amount=AmountRange("BRL", 100_000, 100_000)),), CREATE, Verdict(True, "p")),
        # While the amount is not known, what could still be allowed may go on.
        ((UP_TO_1000,), NOT_YET, Verdict(True, "small")),
        ((ALL, NO_MORE), NOT_YET, Verdict(True, "all")),
        ((UP_TO_1000, deny(roles=names("ops"))), NOT_YET, Verdict(False, "p")),
        ((UP_TO_1000,), READ, Verdict(False, None)),
        # Hours by the zone's clocks: the start is inside, the end is not.
        ((allow(hours=OFFICE),), replace(CREATE, at=datetime(2026, 3, 2, 12, 0, tzinfo=UTC)), Verdict(True, "p")),
        ((allow(hours=OFFICE),), replace(CREATE, at=datetime(2026, 3, 2, 11, 59, tzinfo=UTC)), Verdict(False, None)),
        ((allow(hours=OFFICE),), replace(CREATE, at=datetime(2026, 3, 2, 20, 59, tzinfo=UTC)), Verdict(True, "p")),
        ((allow(hours=OFFICE),), replace(CREATE, at=datetime(2026, 3, 2, 21, 0, tzinfo=UTC)), Verdict(False, None)),
        ((ALL, deny(hours=NIGHT)), replace(CREATE, at=datetime(2026, 3, 2, 1, 0, tzinfo=UTC)), Verdict(False, "p")),
        ((ALL, deny(hours=NIGHT)), replace(CREATE, at=datetime(2026, 3, 2, 8, 59, tzinfo=UTC)), Verdict(False, "p")),
        ((ALL, deny(hours=NIGHT)), replace(CREATE, at=datetime(2026, 3, 2, 9, 0, tzinfo=UTC)), Verdict(True, "all")),
    ],
)
def test_policies_decide(policies: tuple[Policy, ...], attempt: Attempt, verdict: Verdict) -> None:
    assert decide(policies, attempt) == verdict


# Few values, so that conditions are met about as often as not.
def some(*values: str) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


instants = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
moneys = st.builds(Money, st.integers(1, 9), st.sampled_from(("BRL", "USD")))
# To the minute: with both ends equal there would be no hours at all, which the schema refuses.
hours = st.builds(DailyHours, st.times(), st.times(), st.sampled_from((SAO_PAULO, ZoneInfo("Asia/Tokyo")))).filter(
    lambda hours: hours.start != hours.end
)
bounds = st.none() | st.integers(1, 9)
policies = st.lists(
    st.builds(
        Policy,
        st.sampled_from(("a", "b", "c")),
        st.sampled_from(Effect),
        actions=some(*Permission),
        roles=some("ops", "sales"),
        subjects=some("anna", "bert"),
        plans=some("pro", "free"),
        regions=some("region-a", "region-b"),
        amount=st.none()
        | st.builds(
            AmountRange, st.sampled_from(("BRL", "USD")), st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)
        ),
        hours=st.none() | hours,
    ),
    max_size=6,
)
attempts = st.builds(
    Attempt,
    st.sampled_from(Permission),
    st.sampled_from(("anna", "bert")),
    some("ops", "sales"),
    st.sampled_from(("pro", "free")),
    st.sampled_from(("region-a", "region-b")),
    instants,
    st.none() | moneys,
)


@given(policies, attempts)
def test_deny_wins_and_silence_is_no(policies: list[Policy], attempt: Attempt) -> None:
    verdict = decide(policies, attempt)
    met = [policy for policy in policies if policy.meets(attempt)]
    assert verdict.allowed == (bool(met) and all(policy.effect is Effect.ALLOW for policy in met))
    assert verdict.policy is None if not met else verdict.policy in {policy.name for policy in met}


@given(policies, attempts)
def test_the_order_of_policies_does_not_matter(policies: list[Policy], attempt: Attempt) -> None:
    assert decide(policies, attempt).allowed == decide(policies[::-1], attempt).allowed


@given(policies, policies, attempts)
def test_one_more_deny_never_permits_and_one_more_allow_never_forbids(
    policies: list[Policy], more: list[Policy], attempt: Attempt
) -> None:
    allowed = decide(policies, attempt).allowed
    for policy in more:
        with_it = decide([*policies, policy], attempt).allowed
        assert allowed >= with_it if policy.effect is Effect.DENY else with_it >= allowed


@given(policies, attempts)
def test_who_may_once_the_amount_is_known_may_pass_the_door(policies: list[Policy], attempt: Attempt) -> None:
    if decide(policies, attempt).allowed:
        assert decide(policies, replace(attempt, money=None)).allowed


@given(hours, instants)
def test_each_moment_is_either_within_the_hours_or_within_the_others(hours: DailyHours, instant: datetime) -> None:
    others = DailyHours(hours.end, hours.start, hours.zone)
    assert hours.holds(instant) != others.holds(instant)


@given(
    st.sampled_from(Permission), st.sampled_from(sorted(ROLE_PERMISSIONS)), some("a", "b", "*"), st.sampled_from("ab*")
)
def test_only_global_administrators_leave_their_tenant(
    permission: Permission, role: str, homes: frozenset[str], tenant_id: str
) -> None:
    for home in homes:
        try:
            require_tenant(identity(home, role), permission, tenant_id)
        except WrongTenant:
            assert home != tenant_id or tenant_id == "*"
        else:
            assert home in (tenant_id, "*")
