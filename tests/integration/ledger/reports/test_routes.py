"""Balances as of a time, statements and reports over HTTP."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from payments_ledger.postgres.database import Database
from payments_ledger.tenants.use_cases import begin_tenant
from tests.integration.books import settle_a_payment
from tests.integration.conftest import Api
from tests.integration.ledger.journal import ACCOUNTS, Journal

pytestmark = pytest.mark.anyio

REPORTS = "/v1/ledger/reports"
MARCH = "2026-03-10T12:00:00Z"
APRIL = "2026-04-10T12:00:00Z"


@pytest.fixture
async def books(journal: Journal) -> Journal:
    """A wallet with 100.00 since March, 30.00 of it paid out in April, both recorded now; then 5.00 paid in."""
    await journal.account("BANK", "asset")
    await journal.account("WALLET.C001")
    await journal.move("BANK", "WALLET.C001", "100.00", effective_at=MARCH, reference="deposit", description="=1+1")
    await journal.move("WALLET.C001", "BANK", "30.00", effective_at=APRIL)
    await journal.move("BANK", "WALLET.C001", "5.00")
    return journal


async def posted(journal: Journal, **when: str) -> list[str]:
    response = await journal.get(f"{ACCOUNTS}/WALLET.C001/balances", **when)
    assert response.status_code == 200, response.text
    assert all(each.keys() == {"account", "currency", "posted", "version"} for each in response.json())
    return [each["posted"] for each in response.json()]


@pytest.mark.parametrize(
    ("as_of", "balance"),
    [
        ("2026-03-10T11:59:59.999999Z", "0.00"),
        (MARCH, "100.00"),
        ("2026-03-10", "100.00"),
        ("2026-03-09", "0.00"),
        ("2026-04-10T11:59:59Z", "100.00"),
        (APRIL, "70.00"),
        ("2026-04-30", "70.00"),
        ("9999-12-31", "75.00"),
        ("9999-12-31T23:59:59Z", "75.00"),
        ("0001-01-01", "0.00"),
    ],
)
async def test_a_balance_as_of_a_time_is_what_was_effective_by_then(books: Journal, as_of: str, balance: str) -> None:
    assert await posted(books, as_of=as_of) == [balance]


async def test_what_was_not_recorded_by_then_is_not_known_by_then(books: Journal) -> None:
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert await posted(books, as_of=APRIL, known_at=before) == ["0.00"]
    recorded = (await books.get(f"{ACCOUNTS}/WALLET.C001/statement")).json()["lines"][0]["recorded_at"]
    assert await posted(books, known_at=recorded) == ["100.00"]
    assert await posted(books, known_at=recorded, as_of="2026-03-09") == ["0.00"]


async def test_a_statement_runs_from_the_opening_balance_to_the_closing_balance(books: Journal) -> None:
    response = await books.get(f"{ACCOUNTS}/WALLET.C001/statement", **{"from": "2026-04-01", "to": "2026-05-01"})
    statement = response.json()
    [line] = statement.pop("lines")
    assert statement == {
        "account": "WALLET.C001",
        "currency": "BRL",
        "by": "effective",
        "from": "2026-04-01T00:00:00Z",
        "to": "2026-05-01T00:00:00Z",
        "opening_balance": "100.00",
        "closing_balance": "70.00",
    }
    assert line.pop("transaction_id") == line.pop("entry_id")
    assert line.pop("recorded_at") > "2026-05"
    assert line == {
        "payment_intent_id": None,
        "side": "DEBIT",
        "amount": "30.00",
        "balance": "70.00",
        "effective_at": APRIL,
        "book_date": "2026-04-10",
        "description": None,
        "reference": None,
    }


async def test_a_statement_by_the_recording_knows_nothing_of_what_is_recorded_later(books: Journal) -> None:
    url = f"{ACCOUNTS}/WALLET.C001/statement"
    lines = (await books.get(url, by="recorded")).json()["lines"]
    assert [line["balance"] for line in lines] == ["100.00", "70.00", "75.00"]
    statement = (await books.get(url, by="recorded", **{"from": lines[1]["recorded_at"]})).json()
    assert statement["opening_balance"] == "100.00"
    assert statement["lines"] == lines[1:]


@pytest.mark.parametrize("by", ["effective", "recorded"])
async def test_each_page_of_a_statement_opens_with_what_the_one_before_closed_with(books: Journal, by: str) -> None:
    for number in range(7):
        await books.move("BANK", "WALLET.C001", f"{number + 1}.00", effective_at=f"2026-04-{number + 8:02}T12:00:00Z")
    url = f"{ACCOUNTS}/WALLET.C001/statement"
    whole = (await books.get(url, by=by)).json()
    lines: list[Any] = []
    closing = "0.00"
    response = await books.get(url, by=by, limit=3)
    while True:
        page = response.json()
        assert page["opening_balance"] == closing
        closing = page["closing_balance"]
        lines += page["lines"]
        if "next" not in response.links:
            break
        response = await books.client.get(response.links["next"]["url"], headers=books.headers)
    assert lines == whole["lines"]
    assert closing == whole["closing_balance"] == "103.00"


async def test_a_statement_can_be_had_as_csv(books: Journal) -> None:
    url = f"{ACCOUNTS}/WALLET.C001/statement"
    response = await books.client.get(url, headers=books.headers | {"Accept": "text/csv, application/json;q=0.9"})
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["vary"] == "Accept"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["row"], row["amount"], row["balance"]) for row in rows] == [
        ("opening", "", "0.00"),
        ("line", "100.00", "100.00"),
        ("line", "30.00", "70.00"),
        ("line", "5.00", "75.00"),
        ("closing", "", "75.00"),
    ]
    assert rows[1]["description"] == "'=1+1"


async def test_payments_stand_in_the_statements_of_their_accounts(
    journal: Journal, database: Database, tenant: str
) -> None:
    payment = await settle_a_payment(database, tenant)
    await journal.account("BANK", "asset")
    await journal.move("BANK", "CASH", "40.00")
    lines = (await journal.get(f"{ACCOUNTS}/CASH/statement")).json()["lines"]
    assert [(line["payment_intent_id"], line["side"], line["balance"]) for line in lines] == [
        (str(payment.id), "DEBIT", "100.00"),
        (None, "CREDIT", "60.00"),
    ]
    [cash] = (await journal.get(f"{ACCOUNTS}/CASH/balances", as_of=lines[0]["effective_at"])).json()
    assert cash["posted"] == "100.00"


async def test_days_are_those_of_the_tenants_zone(owner: Database, database: Database, api: Api) -> None:
    tenant = f"tenant-{uuid4()}"
    async with owner.transaction([tenant]) as conn:
        await begin_tenant(conn, tenant_id=tenant, name="A shop", plan="pro", region="region-a")
    journal = Journal(api, tenant)
    await journal.account("BANK", "asset")
    await journal.account("WALLET.C001")
    transaction = await journal.move("BANK", "WALLET.C001", "9.00", effective_at="2026-04-01T02:59:59Z")
    await journal.move("BANK", "WALLET.C001", "1.00", effective_at="2026-04-01T03:00:00Z")
    assert transaction["book_date"] == "2026-03-31"
    assert await posted(journal, as_of="2026-03-31") == ["9.00"]
    assert await posted(journal, as_of="2026-04-01") == ["10.00"]
    statement = (await journal.get(f"{ACCOUNTS}/WALLET.C001/statement", **{"from": "2026-04-01"})).json()
    assert statement["from"] == "2026-04-01T03:00:00Z"
    assert statement["opening_balance"] == "9.00"
    assert [line["book_date"] for line in statement["lines"]] == ["2026-04-01"]


@pytest.mark.parametrize("moment", ["0001-01-01", "0001-01-01T00:00:00Z", "9999-12-31", "9999-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Pacific/Kiritimati"])
async def test_the_ends_of_the_calendar_are_times_like_others(
    owner: Database, api: Api, zone: str, moment: str
) -> None:
    tenant = f"tenant-{uuid4()}"
    async with owner.transaction([tenant]) as conn:
        await begin_tenant(conn, tenant_id=tenant, name="x", plan="x", region="x", zone=zone)
    journal = Journal(api, tenant)
    await journal.account("BANK", "asset")
    await journal.move("BANK", "CASH", "1.00", effective_at="1900-01-01T00:00:00Z")
    refused = await journal.try_to_move("BANK", "CASH", "1.00", effective_at="1899-12-31T23:59:59Z")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["#/effective_at"]
    balances = await journal.get(f"{ACCOUNTS}/BANK/balances", as_of=moment, known_at=moment)
    assert [each["posted"] for each in balances.json()] == ["0.00" if moment.startswith("0001") else "1.00"]
    for query in ({"from": moment}, {"to": moment}, {"from": moment, "to": moment}):
        assert (await journal.get(f"{REPORTS}/trial-balance", **query)).status_code == 200
        for by in ("effective", "recorded"):
            statement = await journal.get(f"{ACCOUNTS}/BANK/statement", by=by, **query)
            assert statement.status_code == 200, statement.text


@pytest.fixture
async def company(journal: Journal) -> Journal:
    """Owners put in 1,000.00 in March; in April 300.00 were earned and 120.00 spent; and ¥500 were earned."""
    for code, type_ in (
        ("BANK.BRL", "asset"),
        ("BANK.JPY", "asset"),
        ("CAPITAL", "equity"),
        ("FEES.PIX", "revenue"),
        ("FEES.CARD", "revenue"),
        ("COSTS", "expense"),
        ("WALLET.C001", "liability"),
    ):
        await journal.account(code, type_)
    await journal.account("REFUNDS", "revenue", normal_side="debit")
    await journal.move("BANK.BRL", "CAPITAL", "1000.00", effective_at=MARCH)
    await journal.move("BANK.BRL", "FEES.PIX", "200.00", effective_at=APRIL)
    await journal.move("BANK.BRL", "FEES.CARD", "110.00", effective_at=APRIL)
    await journal.move("REFUNDS", "BANK.BRL", "10.00", effective_at=APRIL)
    await journal.move("COSTS", "BANK.BRL", "120.00", effective_at=APRIL)
    await journal.move("BANK.BRL", "WALLET.C001", "50.00", effective_at=APRIL)
    await journal.move("BANK.JPY", "FEES.CARD", "500", currency="JPY", effective_at=APRIL)
    return journal


BRL_SHEET = {"currency": "BRL", "assets": "1230.00", "liabilities": "50.00", "equity": "1180.00"}
JPY_SHEET = {"currency": "JPY", "assets": "500", "liabilities": "0", "equity": "500"}


@pytest.mark.parametrize(
    ("name", "query", "totals"),
    [
        ("balance-sheet", {}, [BRL_SHEET, JPY_SHEET]),
        ("balance-sheet", {"currency": "JPY"}, [JPY_SHEET]),
        (
            "balance-sheet",
            {"as_of": "2026-03-31"},
            [{"currency": "BRL", "assets": "1000.00", "liabilities": "0.00", "equity": "1000.00"}],
        ),
        (
            "income-statement",
            {"from": "2026-04-01", "to": "2026-05-01", "currency": "BRL"},
            [{"currency": "BRL", "revenue": "300.00", "expenses": "120.00", "result": "180.00"}],
        ),
        ("income-statement", {"from": "2026-03-01", "to": "2026-04-01"}, None),
        (
            "trial-balance",
            {"currency": "BRL"},
            [{"currency": "BRL", "debits": "1490.00", "credits": "1490.00"}],
        ),
        (
            "trial-balance",
            {"from": "2026-04-10T11:00:00Z", "to": "2026-04-10T12:00:00Z"},
            [],
        ),
    ],
)
async def test_a_report_adds_up(company: Journal, name: str, query: dict[str, str], totals: Any) -> None:
    response = await company.get(f"{REPORTS}/{name}", **query)
    assert response.status_code == 200, response.text
    if totals is None:
        # Nothing was earned in March, but something moved.
        assert response.json() == {
            "rows": [],
            "totals": [{"currency": "BRL", "revenue": "0.00", "expenses": "0.00", "result": "0.00"}],
        }
    else:
        assert response.json()["totals"] == totals


async def test_depth_rolls_accounts_up_by_whole_dotted_parts(company: Journal) -> None:
    rows = (await company.get(f"{REPORTS}/income-statement", depth=1, currency="BRL")).json()["rows"]
    assert [(row["account"], row["type"], row["balance"]) for row in rows] == [
        ("COSTS", "expense", "120.00"),
        ("FEES", "revenue", "310.00"),
        # A contra account's balance is negative, so that revenue adds up.
        ("REFUNDS", "revenue", "-10.00"),
    ]


async def test_a_report_can_be_had_as_csv(company: Journal) -> None:
    headers = company.headers | {"Accept": "text/csv"}
    response = await company.client.get(f"{REPORTS}/trial-balance?currency=JPY", headers=headers)
    assert response.text.splitlines() == [
        "account,type,currency,debits,credits,balance",
        "BANK.JPY,asset,JPY,500,0,500",
        "FEES.CARD,revenue,JPY,0,500,500",
    ]


@pytest.mark.parametrize(
    ("path", "query", "parameter"),
    [
        (f"{ACCOUNTS}/WALLET.C001/balances", {"as_of": "yesterday"}, "as_of"),
        (f"{ACCOUNTS}/WALLET.C001/balances", {"as_of": "2026-02-30"}, "as_of"),
        (f"{ACCOUNTS}/WALLET.C001/balances", {"known_at": ""}, "known_at"),
        (f"{ACCOUNTS}/WALLET.C001/statement", {"by": "time"}, "by"),
        (f"{ACCOUNTS}/WALLET.C001/statement", {"currency": "XXY"}, "currency"),
        (f"{ACCOUNTS}/WALLET.C001/statement", {"from": "2026-02-02", "to": "2026-02-01"}, "from"),
        (f"{ACCOUNTS}/EMPTY/statement", {}, "currency"),
        (f"{REPORTS}/trial-balance", {"as_of": "2026-02-02", "to": "2026-02-01"}, "as_of"),
        (f"{REPORTS}/trial-balance", {"depth": "0"}, "depth"),
        (f"{REPORTS}/balance-sheet", {"currency": "real"}, "currency"),
        (f"{REPORTS}/income-statement", {"from": "2026-13-01"}, "from"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(
    books: Journal, path: str, query: dict[str, str], parameter: str
) -> None:
    await books.account("EMPTY")
    response = await books.get(path, **query)
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


@pytest.mark.parametrize("view", ["balances", "balances?as_of=2026-01-01", "statement"])
async def test_an_unknown_account_is_not_found(journal: Journal, view: str) -> None:
    response = await journal.get(f"{ACCOUNTS}/NOWHERE/{view}")
    assert response.status_code == 404
    assert response.json()["code"] == "account_not_found"


async def test_a_cursor_fits_the_account_that_it_was_made_for(books: Journal) -> None:
    response = await books.get(f"{ACCOUNTS}/WALLET.C001/statement", limit=1)
    elsewhere = response.links["next"]["url"].replace("WALLET.C001", "BANK")
    assert (await books.client.get(elsewhere, headers=books.headers)).status_code == 400


async def test_who_may_not_read_the_ledger_sees_no_report(api: Api, tenant: str) -> None:
    headers = api.headers(tenant, role="sales")
    for path in (f"{ACCOUNTS}/CASH/statement", f"{REPORTS}/trial-balance"):
        assert (await api.client.get(path, headers=headers)).status_code == 403
