"""Entries and balances over HTTP: pages that neither repeat nor omit, balances equal to the fold of the postings."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.ledger.queries import insert_entries, insert_postings
from payments_ledger.money import Money
from payments_ledger.postgres.database import Database
from tests.integration.books import settle_a_payment
from tests.integration.conftest import Api
from tests.integration.http import assert_problem

pytestmark = pytest.mark.anyio

ENTRIES = "/v1/ledger/entries"
BALANCES = "/v1/ledger/balances"


async def post_at(database: Database, tenant: str, posted_at: datetime, *amounts: int) -> None:
    entries = [
        Entry(tenant, uuid4(), "settlement", uuid4(), "c", (Posting(CASH, REVENUE, Money(amount, "BRL")),))
        for amount in amounts
    ]
    async with database.transaction([tenant]) as conn:
        await insert_entries(conn, entries, posted_at)
        await insert_postings(conn, entries, posted_at)


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, number, hour, tzinfo=UTC)


async def test_an_entry_shows_a_debit_and_a_credit_line(api: Api, database: Database, tenant: str) -> None:
    payment = await settle_a_payment(database, tenant)
    [entry] = (await api.client.get(ENTRIES, headers=api.headers(tenant))).json()
    assert list(entry) == ["id", "payment_intent_id", "posted_at", "lines"]
    assert entry["payment_intent_id"] == str(payment.id)
    assert entry["lines"] == [
        {"side": "DEBIT", "account": "CASH", "amount": "100.00", "currency": "BRL"},
        {"side": "CREDIT", "account": "REVENUE", "amount": "100.00", "currency": "BRL"},
    ]


async def test_pages_follow_the_link_newest_first_without_repeating_or_omitting(
    api: Api, database: Database, tenant: str
) -> None:
    for number in range(1, 4):
        await post_at(database, tenant, day(number), *range(1, 8))
    headers, url, seen = api.headers(tenant), f"{ENTRIES}?limit=4&from=2026-01-01", []
    while url:
        page = await api.client.get(url, headers=headers)
        assert page.status_code == 200
        seen += [(entry["posted_at"], entry["id"]) for entry in page.json()]
        link = page.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        url = link.partition(">")[0].lstrip("<")
        if len(seen) == 8:
            # What is posted while a client pages comes before what it has seen, not into the middle.
            await post_at(database, tenant, day(20), 1)
    assert len(seen) == len(set(seen)) == 21
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("query", "hours"),
    [
        ("", {0, 6, 24, 30, 54}),
        ("from=2026-01-01T06:00:00", {6, 24, 30, 54}),
        ("from=2026-01-01T06:00:00.000001Z", {24, 30, 54}),
        ("to=2026-01-02T06:00:00Z", {0, 6, 24}),
        ("from=2026-01-02&to=2026-01-03", {24, 30}),
        ("from=2026-01-01T01:00:00&to=2026-01-01T07:00:00", {6}),
        ("from=2026-01-01T06:00:00&to=2026-01-01T06:00:00", set()),
        ("from=2026-01-01T21:00:00-03:00", {24, 30, 54}),
        ("from=2027-01-01", set()),
    ],
)
async def test_a_period_includes_its_start_and_excludes_its_end_in_entries_and_balances_alike(
    api: Api, database: Database, tenant: str, query: str, hours: set[int]
) -> None:
    for number, hour in enumerate((0, 6, 24, 30, 54)):
        await post_at(database, tenant, day(1) + timedelta(hours=hour), 10**number)
    headers = api.headers(tenant)
    entries = (await api.client.get(f"{ENTRIES}?{query}", headers=headers)).json()
    assert {(datetime.fromisoformat(entry["posted_at"]) - day(1)) // timedelta(hours=1) for entry in entries} == hours
    fold: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entry in entries:
        for line in entry["lines"]:
            fold[line["account"], line["side"]] += Decimal(line["amount"])
    balances = (await api.client.get(f"{BALANCES}?{query}", headers=headers)).json()
    assert {(b["account"], Decimal(b["debits_total"]), Decimal(b["credits_total"])) for b in balances} == {
        (account, fold[account, "DEBIT"], fold[account, "CREDIT"]) for account, _ in list(fold)
    }


async def test_balances_are_kept_by_account_and_currency(api: Api, database: Database, tenant: str) -> None:
    for money in (Money(100, "BRL"), Money(7, "JPY"), Money(1234, "KWD"), Money(250, "BRL")):
        await settle_a_payment(database, tenant, money)
    balances = (await api.client.get(BALANCES, headers=api.headers(tenant))).json()
    assert list(balances[0]) == ["account", "type", "currency", "debits_total", "credits_total", "balance"]
    assert [tuple(balance.values()) for balance in balances] == [
        ("CASH", "asset", "BRL", "3.50", "0.00", "3.50"),
        ("CASH", "asset", "JPY", "7", "0", "7"),
        ("CASH", "asset", "KWD", "1.234", "0.000", "1.234"),
        ("REVENUE", "revenue", "BRL", "0.00", "3.50", "3.50"),
        ("REVENUE", "revenue", "JPY", "0", "7", "7"),
        ("REVENUE", "revenue", "KWD", "0.000", "1.234", "1.234"),
    ]


async def test_a_tenant_sees_its_own_books_only(api: Api, database: Database, tenant: str, new_tenant: Any) -> None:
    await settle_a_payment(database, tenant)
    headers = api.headers(await new_tenant())
    for path in (ENTRIES, BALANCES):
        assert (await api.client.get(path, headers=headers)).json() == []


@pytest.mark.parametrize(
    ("path", "query", "status", "pointer"),
    [
        *(
            (path, query, 422, "from")
            for path in (ENTRIES, BALANCES)
            for query in (
                "from=0",
                "from=2026-13-01",
                "from=x",
                "from=",
                "from=0001-01-01T00:00:00%2B14:00",
                "from=2026-01-02&to=2026-01-01",
            )
        ),
        (ENTRIES, "to=tomorrow", 422, "to"),
        (ENTRIES, "limit=0", 422, "limit"),
        (ENTRIES, "limit=201", 422, "limit"),
        (ENTRIES, "limit=1e2", 422, "limit"),
        (ENTRIES, "cursor=abc", 400, None),
        (ENTRIES, "cursor=%00", 400, None),
        (ENTRIES, f"cursor={'x' * 101}", 400, None),
        (ENTRIES, f"cursor={'x' * 5000}", 400, None),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(
    api: Api, tenant: str, path: str, query: str, status: int, pointer: str | None
) -> None:
    response = await api.client.get(f"{path}?{query}", headers=api.headers(tenant))
    assert_problem(response, status, None if pointer else "invalid_cursor", pointer)


@pytest.mark.parametrize("path", [ENTRIES, BALANCES])
@pytest.mark.parametrize(
    "query",
    [
        "from=9999-12-31T00:00:00.000001Z",
        "from=9999-12-31T23:59:59.999999Z",
        "from=9999-12-31T00:00:00.000001Z&to=9999-12-31T23:59:59.999999Z",
        "from=9999-12-31",
        "to=0001-01-01",
    ],
)
async def test_at_the_ends_of_the_calendar_nothing_happened(
    api: Api, database: Database, tenant: str, path: str, query: str
) -> None:
    await post_at(database, tenant, day(1), 1)
    response = await api.client.get(f"{path}?{query}", headers=api.headers(tenant))
    assert (response.status_code, response.json()) == (200, [])


async def test_a_cursor_of_another_tenant_is_refused(
    api: Api, database: Database, tenant: str, new_tenant: Any
) -> None:
    await post_at(database, tenant, day(1), 1, 2)
    page = await api.client.get(f"{ENTRIES}?limit=1", headers=api.headers(tenant))
    url = page.headers["Link"].partition(">")[0].lstrip("<")
    assert_problem(await api.client.get(url, headers=api.headers(await new_tenant())), 400, "invalid_cursor")
