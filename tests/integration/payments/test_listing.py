"""Any filters over any payments find what a look at each of them finds, newest first, page by page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from payments_ledger.errors import Rejected
from payments_ledger.ledger.period import Period
from payments_ledger.money import Money
from payments_ledger.payments import listing
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.listing import PaymentFilter, list_payments
from payments_ledger.payments.payment import CaptureMethod, Failure, Payment, Terms
from payments_ledger.payments.queries import find_payment
from payments_ledger.payments.use_cases import (
    AnnotatePayment,
    CancelPayment,
    CapturePayment,
    ConfirmPayment,
    CreatePayments,
    FailPayment,
    NewPayment,
    SettlePayment,
    annotate_payments,
    cancel_payments,
    capture_payments,
    confirm_payments,
    create_payments,
    fail_payments,
    settle_payments,
)
from payments_ledger.postgres.database import Connection, Database
from tests.integration.books import ORIGIN
from tests.integration.conftest import Api
from tests.integration.http import PATH, assert_problem
from tests.integration.payments.lifecycle_requests import authorized, created, read, settled
from tests.profiles import examples

pytestmark = pytest.mark.anyio

MANUAL = Terms(CaptureMethod.MANUAL)
KEYS, VALUES = ("a", "b"), ("1", "2", "")
METADATA = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))


@dataclass(frozen=True)
class Life:
    """A payment to make, and what happens to it. Those of a `moment` are created by one transaction."""

    moment: int
    amount: int
    currency: str
    customer_ref: str
    has_order: bool
    is_manual: bool
    end: Status
    metadata: Mapping[str, str]
    change: Mapping[str, str | None] | None


LIVES = st.builds(
    Life,
    moment=st.integers(0, 3),
    amount=st.integers(1, 4),
    currency=st.sampled_from(["BRL", "JPY"]),
    customer_ref=st.sampled_from(["C1", "C2"]),
    has_order=st.booleans(),
    is_manual=st.booleans(),
    end=st.sampled_from(Status),
    metadata=METADATA,
    change=st.none() | st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES) | st.none()),
)
# What is None is left out; numbers of moments and orders mean those that there are.
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "statuses": st.lists(st.sampled_from(Status), min_size=1, max_size=3).map(tuple),
        "customer_ref": st.sampled_from(["C1", "C2", "C3"]),
        "currency": st.sampled_from(["BRL", "JPY", "USD"]),
        "amount_min": st.integers(0, 5),
        "amount_max": st.integers(0, 5),
        "metadata": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1, max_size=2),
        "order": st.integers(0, 5),
        "start": st.integers(0, 3),
        "end": st.integers(0, 3),
    },
)


async def live(conn: Connection, tenant: str, life: Life, payment_id: UUID) -> None:
    """What happens to it after its creation."""

    async def do(use_case: Any, command: Any) -> None:
        [outcome] = await use_case(conn, [command])
        assert not isinstance(outcome, Rejected), outcome

    if life.change is not None:
        await do(annotate_payments, AnnotatePayment(tenant, payment_id, None, life.change, ORIGIN))
    if life.end in (Status.AUTHORIZED, Status.SETTLED):
        await do(confirm_payments, ConfirmPayment(tenant, payment_id, ORIGIN))
    if life.end is Status.SETTLED:
        if life.is_manual:
            await do(capture_payments, CapturePayment(tenant, payment_id, None, ORIGIN))
        await do(settle_payments, SettlePayment(tenant, payment_id, ORIGIN))
    if life.end is Status.CANCELLED:
        await do(cancel_payments, CancelPayment(tenant, payment_id, None, ORIGIN))
    if life.end is Status.FAILED:
        await do(fail_payments, FailPayment(tenant, payment_id, Failure("lost"), ORIGIN))


async def make(database: Database, tenant: str, lives: Sequence[Life]) -> list[Payment]:
    """The payments as they are in the end, newest first."""
    ids = []
    for moment in sorted({life.moment for life in lives}):
        of_moment = [(life, uuid7()) for life in lives if life.moment == moment]
        new = tuple(
            NewPayment(
                payment_id,
                Money(life.amount, life.currency),
                life.customer_ref,
                f"order-{payment_id}" if life.has_order else None,
                MANUAL if life.is_manual else Terms(),
                metadata=life.metadata,
            )
            for life, payment_id in of_moment
        )
        async with database.transaction([tenant]) as conn:
            await create_payments(conn, [CreatePayments(tenant, new, ORIGIN)])
        async with database.transaction([tenant]) as conn:
            for life, payment_id in of_moment:
                await live(conn, tenant, life, payment_id)
        ids += [payment_id for _, payment_id in of_moment]
    async with database.transaction([tenant]) as conn:
        payments = [payment for payment_id in ids if (payment := await find_payment(conn, tenant, payment_id))]
    return sorted(payments, key=lambda payment: (payment.created_at, payment.id), reverse=True)


def wanted_of(drawn: dict[str, Any], payments: Sequence[Payment]) -> PaymentFilter:
    moments = sorted({payment.created_at for payment in payments})
    orders = [payment.order_id for payment in payments if payment.order_id] or ["none"]
    number = drawn.pop("order", None)
    start, end = (
        None if place is None else moments[min(place, len(moments) - 1)]
        for place in sorted(
            [drawn.pop("start", None), drawn.pop("end", None)], key=lambda place: (place is None, place)
        )
    )
    order_id = None if number is None else orders[min(number, len(orders) - 1)]
    return PaymentFilter(**drawn, order_id=order_id, period=Period(start, end))


def is_wanted(payment: Payment, wanted: PaymentFilter) -> bool:
    """A look at one payment."""
    return all(
        (
            not wanted.statuses or payment.status in wanted.statuses,
            wanted.customer_ref in (None, payment.customer_ref),
            wanted.order_id in (None, payment.order_id),
            wanted.currency in (None, payment.money.currency),
            wanted.amount_min is None or payment.money.amount >= wanted.amount_min,
            wanted.amount_max is None or payment.money.amount <= wanted.amount_max,
            all(payment.metadata.get(key) == value for key, value in wanted.metadata.items()),
            wanted.period.start is None or payment.created_at >= wanted.period.start,
            wanted.period.end is None or payment.created_at < wanted.period.end,
        )
    )


async def all_pages(database: Database, tenant: str, wanted: PaymentFilter, limit: int) -> list[Payment]:
    """What a client finds who follows the pages to the end."""
    found: list[Payment] = []
    after: tuple[datetime, UUID] | None = None
    while True:
        async with database.transaction([tenant]) as conn:
            # One more than the page shows.
            listed = await list_payments(conn, tenant, wanted, after=after, limit=limit + 1)
        page = listed.payments[:limit]
        found += page
        following = (page[-1].created_at, page[-1].id) if len(listed.payments) > limit else listed.goes_on_after
        if following is None:
            return found
        assert after is None or following < after
        after = following


@given(
    lives=st.lists(LIVES, min_size=1, max_size=20),
    drawn=st.lists(FILTERS, min_size=5, max_size=10),
    limit=st.integers(1, 5),
    scanned=st.integers(1, 8),
)
@examples(30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_any_filters_find_what_a_look_at_each_payment_finds(
    database: Database,
    new_tenant: Callable[[], Awaitable[str]],
    lives: list[Life],
    drawn: list[dict[str, Any]],
    limit: int,
    scanned: int,
) -> None:
    """Pages that look at a few payments only end early, and the next ones find the rest."""
    tenant = await new_tenant()
    payments = await make(database, tenant, lives)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SCANNED_MAX", scanned)
        for wanted in [wanted_of(dict(each), payments) for each in drawn]:
            expected = [payment for payment in payments if is_wanted(payment, wanted)]
            assert await all_pages(database, tenant, wanted, limit) == expected, wanted


# ----------------------------------------------------------------------------------------------------------------------
# Over HTTP


@pytest.fixture
def headers(api: Api, tenant: str) -> dict[str, str]:
    return api.headers(tenant)


async def follow(api: Api, headers: dict[str, str], query: str) -> list[dict[str, Any]]:
    """All payments of all pages."""
    found: list[dict[str, Any]] = []
    following: str | None = f"{PATH}?{query}"
    while following:
        response = await api.client.get(following, headers=headers)
        assert response.status_code == 200, response.text
        found += response.json()
        following = response.links.get("next", {}).get("url")
    return found


async def test_payments_are_listed_as_they_are_shown_newest_first_in_pages(
    api: Api, database: Database, tenant: str, headers: dict[str, str], new_tenant: Callable[[], Awaitable[str]]
) -> None:
    made = [
        await created(api, headers, customer_ref="A", metadata={"cart": "A 1+ü", "note": ""}),
        await settled(api, database, tenant, headers, amount="7", currency="JPY"),
        await authorized(api, headers, capture_method="manual", metadata={"cart": "A 1+ü"}),
        await created(api, headers, amount="12.34"),
    ]
    newest_first = [await read(api, headers, payment["id"]) for payment in reversed(made)]
    one, two, three, four = newest_first
    assert await follow(api, headers, "limit=1") == newest_first
    for query, expected in {
        "": newest_first,
        "status=CREATED": [one, four],
        "status=CREATED&status=SETTLED&status=CREATED": [one, three, four],
        "status=AUTHORIZED&limit=1": [two],
        "customer_ref=A": [four],
        "currency=JPY": [three],
        "currency=BRL&amount_min=12.340": [one, two, four],
        "currency=BRL&amount_min=12.35&amount_max=100": [two, four],
        "currency=BRL&amount_max=12.34&amount_min=12.34": [one],
        "currency=BRL&amount_max=0": [],
        "currency=KWD&amount_min=0": [],
        "metadata.cart=A%201%2B%C3%BC&limit=1": [two, four],
        "metadata.cart=A%201%2B%C3%BC&metadata.note=": [four],
        "metadata.cart=A": [],
        f"from={two['created_at']}": [one, two],
        f"to={two['created_at']}": [three, four],
        f"from={two['created_at']}&to={two['created_at']}": [],
        "status=CREATED&customer_ref=A&currency=BRL&amount_min=1&metadata.note=&limit=200": [four],
        "order_id=none": [],
    }.items():
        assert await follow(api, headers, query) == expected, query
    stranger = api.headers(await new_tenant())
    assert (await api.client.get(PATH, headers=stranger)).json() == []
    for role in ("ops", "sales", "finance"):
        assert (await api.client.get(PATH, headers=api.headers(tenant, role=role))).status_code == 200


async def test_a_page_that_finds_nothing_among_many_payments_says_where_the_list_goes_on(
    api: Api, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_MAX", 2)
    oldest = await created(api, headers, currency="USD")
    for _ in range(4):
        await created(api, headers)
    page = await api.client.get(f"{PATH}?currency=USD", headers=headers)
    assert page.json() == []
    assert "next" in page.links
    assert await follow(api, headers, "currency=USD") == [oldest]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("status=PAID", "status"),
        ("status=CREATED&status=", "status"),
        ("status=created", "status"),
        ("currency=BRL&amount_min=-1", "amount_min"),
        ("currency=BRL&amount_min=1e3", "amount_min"),
        ("currency=BRL&amount_min=NaN", "amount_min"),
        ("currency=BRL&amount_min=", "amount_min"),
        ("currency=BRL&amount_max=0.001", "amount_max"),
        ("currency=JPY&amount_max=10.5", "amount_max"),
        ("currency=BRL&amount_max=99999999999999999999", "amount_max"),
        ("currency=BRL&amount_min=2&amount_max=1.99", "amount_min"),
        ("amount_min=1", "currency"),
        ("amount_max=1", "currency"),
        ("currency=XXX", "currency"),
        ("currency=brl", "currency"),
        ("currency=", "currency"),
        ("currency=BRL&currency=USD", "currency"),
        ("currency=BRL&amount_min=1&amount_min=1", "amount_min"),
        ("customer_ref=", "customer_ref"),
        (f"customer_ref={'x' * 129}", "customer_ref"),
        ("customer_ref=a&customer_ref=a", "customer_ref"),
        ("order_id=%00", "order_id"),
        ("from=yesterday", "from"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("metadata.=1", "metadata."),
        ("metadata.a=1&metadata.a=2", "metadata.a"),
        ("metadata=1", "metadata"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("sort=amount", "sort"),
        ("customer=a", "customer"),
    ],
)
async def test_a_filter_that_cannot_be_met_or_read_is_refused_by_name(
    api: Api, headers: dict[str, str], query: str, parameter: str
) -> None:
    assert_problem(await api.client.get(f"{PATH}?{query}", headers=headers), 422, place=parameter)


async def test_a_cursor_fits_only_the_list_and_the_filters_that_it_was_made_for(
    api: Api, headers: dict[str, str], tenant: str, new_tenant: Callable[[], Awaitable[str]]
) -> None:
    for _ in range(2):
        await created(api, headers)
    query = "status=CREATED&status=SETTLED&metadata.a=&currency=BRL"
    for _ in range(2):
        await created(api, headers, metadata={"a": ""})
    page = await api.client.get(f"{PATH}?limit=1&{query}", headers=headers)
    cursor = page.links["next"]["url"].partition("cursor=")[2]
    # Neither their order nor the size of a page matters.
    same = f"{PATH}?currency=BRL&metadata.a=&status=SETTLED&status=CREATED&limit=9&cursor={cursor}"
    assert (await api.client.get(same, headers=headers)).status_code == 200
    for path in (
        f"{PATH}?cursor={cursor}",
        f"{PATH}?status=CREATED&metadata.a=&currency=BRL&cursor={cursor}",
        f"{PATH}?{query}&from=2026-01-01&cursor={cursor}",
        f"{PATH}?{query}x&cursor={cursor}".replace("BRLx", "USD"),
        f"/v1/refunds?cursor={cursor}",
        f"/v1/ledger/entries?cursor={cursor}",
        f"{PATH}?{query}&cursor={cursor[:-1]}",
        f"{PATH}?{query}&cursor=x",
    ):
        assert_problem(await api.client.get(path, headers=headers), 400, "invalid_cursor", "cursor")
    other = api.headers(await new_tenant())
    assert_problem(await api.client.get(f"{PATH}?{query}&cursor={cursor}", headers=other), 400, "invalid_cursor")
