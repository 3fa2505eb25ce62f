"""Accounts over HTTP: made, listed, changed, closed; each refusal of the contract once."""

import asyncio
from typing import Any

import pytest

from payments_ledger.postgres.database import Database
from tests.integration.books import settle_a_payment
from tests.integration.conftest import Api
from tests.integration.http import assert_problem
from tests.integration.ledger.journal import ACCOUNTS, Journal

pytestmark = pytest.mark.anyio

WALLET = {"code": "WALLET.C001", "name": "Ana", "type": "liability"}


async def test_a_created_account_can_be_read_where_location_says(journal: Journal) -> None:
    limits = [
        {"currency": "JPY", "balance_min": None, "balance_max": "5000"},
        {"currency": "BRL", "balance_min": "-10.5", "balance_max": None},
    ]
    asked = {**WALLET, "owner_ref": "C001", "metadata": {"tier": "gold"}, "limits": limits}
    response = await journal.post(ACCOUNTS, asked)
    assert response.status_code == 201, response.text
    account = response.json()
    assert account == {
        **asked,
        "normal_side": "credit",
        "limits": [
            {"currency": "BRL", "balance_min": "-10.50", "balance_max": None},
            {"currency": "JPY", "balance_min": None, "balance_max": "5000"},
        ],
        "state": "open",
        "created_at": account["created_at"],
        "closed_at": None,
    }
    assert response.headers["Location"] == f"{ACCOUNTS}/WALLET.C001"
    read = await journal.get(response.headers["Location"])
    assert (read.status_code, read.content) == (200, response.content)


@pytest.mark.parametrize(
    ("type_", "asked", "side"),
    [
        ("asset", None, "debit"),
        ("expense", None, "debit"),
        ("liability", None, "credit"),
        ("equity", None, "credit"),
        ("revenue", None, "credit"),
        ("asset", "credit", "credit"),
        ("revenue", "debit", "debit"),
    ],
)
async def test_the_normal_side_is_that_of_the_type_unless_it_is_given(
    journal: Journal, type_: str, asked: str | None, side: str
) -> None:
    account = await journal.account("A", type_, normal_side=asked)
    assert account["normal_side"] == side
    await journal.account("B", "asset")
    debit, credit = ("A", "B") if side == "debit" else ("B", "A")
    await journal.move(debit, credit, "1.00")
    assert (await journal.balance("A"))["posted"] == "1.00"
    listed = (await journal.get("/v1/ledger/balances")).json()
    assert next(each["balance"] for each in listed if each["account"] == "A") == "1.00"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"code": "wallet"}, "#/code"),
        ({"code": "A..B"}, "#/code"),
        ({"code": "A.1"}, "#/code"),
        ({"code": "A" * 129}, "#/code"),
        ({"code": "A\n"}, "#/code"),
        ({"name": ""}, "#/name"),
        ({"name": "4111 1111 1111 1111"}, "#/name"),
        ({"type": "wallet"}, "#/type"),
        ({"normal_side": "left"}, "#/normal_side"),
        ({"owner_ref": "x" * 129}, "#/owner_ref"),
        ({"metadata": {"a b": "c"}}, "#/metadata/a%20b"),
        ({"metadata": {"a": "4111111111111111"}}, "#/metadata/a"),
        ({"limits": [{"currency": "XXX", "balance_min": "0"}]}, "#/limits/0/currency"),
        ({"limits": [{"currency": "BRL", "balance_min": "0.001"}]}, "#/limits/0/balance_min"),
        ({"limits": [{"currency": "BRL", "balance_min": "2", "balance_max": "1"}]}, "#/limits/0/balance_min"),
        ({"limits": [{"currency": "BRL", "balance_min": "0"}] * 2}, "#/limits/1/currency"),
        ({"balance": "1.00"}, "#/balance"),
    ],
)
async def test_what_is_wrong_with_an_account_is_said_of_its_field(
    journal: Journal, change: dict[str, Any], place: str
) -> None:
    assert_problem(await journal.post(ACCOUNTS, {**WALLET, **change}), 422, None, place)
    assert (await journal.get(f"{ACCOUNTS}/WALLET.C001")).status_code == 404


async def test_a_code_is_taken_once_also_by_two_at_once(journal: Journal) -> None:
    responses = await asyncio.gather(*(journal.post(ACCOUNTS, WALLET) for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409]
    assert {response.json().get("code") for response in responses} == {"WALLET.C001", "account_exists"}


async def test_a_repetition_gets_the_first_response(journal: Journal) -> None:
    first = await journal.post(ACCOUNTS, WALLET, key="k")
    again = await journal.post(ACCOUNTS, WALLET, key="k")
    assert (again.status_code, again.content, again.headers["Idempotent-Replayed"]) == (201, first.content, "true")
    assert_problem(await journal.post(ACCOUNTS, {**WALLET, "name": "B"}, key="k"), 422, "idempotency_key_reused")


@pytest.mark.parametrize(("minimum", "maximum"), [("0.01", None), (None, "-0.01")])
async def test_an_account_is_not_made_with_a_limit_that_zero_breaks(
    journal: Journal, minimum: str | None, maximum: str | None
) -> None:
    limits = [{"currency": "BRL", "balance_min": minimum, "balance_max": maximum}]
    assert_problem(await journal.post(ACCOUNTS, {**WALLET, "limits": limits}), 409, "limit_exceeded")


async def test_accounts_are_listed_in_byte_order_of_their_codes_page_by_page(journal: Journal) -> None:
    codes = ["A", "A.B", "A.B.C", "A.B_C", "AB", "A_B", "Z9", "Z_"]
    for code in reversed(codes):
        await journal.account(code)
    url, seen = f"{ACCOUNTS}?limit=3", []
    while url:
        page = await journal.client.get(url, headers=journal.headers)
        assert page.status_code == 200, page.text
        seen += [account["code"] for account in page.json()]
        url = page.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert seen == sorted([*codes, "CASH", "REVENUE"])


@pytest.mark.parametrize(
    ("query", "codes"),
    [
        ({"prefix": "A.B"}, ["A.B", "A.B.C"]),
        ({"prefix": "A"}, ["A", "A.B", "A.B.C", "A.B_C"]),
        ({"prefix": "B"}, []),
        ({"type": "expense"}, ["FEES"]),
        ({"state": "closed"}, ["OLD"]),
        ({"prefix": "OLD", "state": "open"}, []),
        ({"owner_ref": "C1"}, ["A.B.C"]),
        ({"metadata.tier": "gold"}, ["A.B.C"]),
        ({"metadata.tier": "gold", "metadata.town": "Rio"}, []),
        ({"metadata.tier": "gol"}, []),
    ],
)
async def test_lists_are_filtered(journal: Journal, query: dict[str, str], codes: list[str]) -> None:
    for code in ("A", "A.B", "A.B_C", "OLD"):
        await journal.account(code)
    await journal.account("A.B.C", owner_ref="C1", metadata={"tier": "gold"})
    await journal.account("FEES", "expense")
    await journal.post(f"{ACCOUNTS}/OLD/close")
    assert [account["code"] for account in (await journal.get(ACCOUNTS, **query)).json()] == codes


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("prefix=a", "prefix"),
        ("type=x", "type"),
        ("state=shut", "state"),
        ("metadata.a%20b=c", "metadata.a b"),
        ("metadata.a=1&metadata.a=2", "metadata.a"),
        ("metadata.=1", "metadata."),
        ("meta.a=1", "meta.a"),
        ("limit=0", "limit"),
    ],
)
async def test_a_bad_filter_is_refused_by_name(journal: Journal, query: str, place: str) -> None:
    response = await journal.client.get(f"{ACCOUNTS}?{query}", headers=journal.headers)
    assert_problem(response, 422, None, place)


async def test_a_cursor_fits_no_other_filter(journal: Journal) -> None:
    page = await journal.get(ACCOUNTS, limit=1, type="asset", state="open")
    await journal.account("B", "asset")
    page = await journal.get(ACCOUNTS, limit=1, type="asset")
    url = page.headers["Link"].partition(">")[0].lstrip("<")
    assert (await journal.client.get(url, headers=journal.headers)).status_code == 200
    other = url.replace("type=asset", "type=revenue")
    assert_problem(await journal.client.get(other, headers=journal.headers), 400, "invalid_cursor")


async def test_a_change_merges_what_is_given(journal: Journal) -> None:
    before = await journal.account("A", owner_ref="C1", metadata={"a": "1", "b": "2"})
    changed = await journal.patch("A", name="New", owner_ref=None, metadata={"a": None, "c": "3"})
    assert changed.status_code == 200, changed.text
    assert changed.json() == {**before, "name": "New", "owner_ref": None, "metadata": {"b": "2", "c": "3"}}
    assert (await journal.get(f"{ACCOUNTS}/A")).content == changed.content


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": None}, "#/name"),
        ({"code": "B"}, "#/code"),
        ({"type": "asset"}, "#/type"),
        ({"limits": [{"currency": "BRL", "balance_min": "x"}]}, "#/limits/0/balance_min"),
    ],
)
async def test_what_never_changes_is_no_field_of_a_change(journal: Journal, change: dict[str, Any], place: str) -> None:
    await journal.account("A")
    assert_problem(await journal.patch("A", **change), 422, None, place)


async def test_a_limit_is_set_only_where_the_balance_is_within_it(journal: Journal) -> None:
    await journal.account("A")
    await journal.account("B", "asset")
    await journal.move("B", "A", "10.00")
    for bad in ({"balance_min": "10.01"}, {"balance_max": "9.99"}):
        response = await journal.patch("A", limits=[{"currency": "BRL", **bad}])
        assert_problem(response, 409, "limit_exceeded")
    good = await journal.patch("A", limits=[{"currency": "BRL", "balance_min": "4.00", "balance_max": "10.00"}])
    assert good.status_code == 200, good.text
    assert_problem(await journal.try_to_move("A", "B", "6.01"), 409, "insufficient_funds")
    assert_problem(await journal.try_to_move("B", "A", "0.01"), 409, "limit_exceeded")
    await journal.move("A", "B", "6.00")
    assert (await journal.patch("A", limits=[])).json()["limits"] == []
    await journal.move("A", "B", "100.00")


async def test_payments_accounts_take_no_limits_and_are_never_closed(journal: Journal) -> None:
    response = await journal.patch("CASH", limits=[{"currency": "BRL", "balance_min": "0"}])
    assert_problem(response, 422, None, "#/limits")
    assert_problem(await journal.post(f"{ACCOUNTS}/REVENUE/close"), 409, "account_in_use")


async def test_an_account_is_closed_when_nothing_is_left_in_it_and_can_be_reopened(journal: Journal) -> None:
    await journal.account("A")
    await journal.account("B", "asset")
    await journal.move("B", "A", "10.00")
    assert_problem(await journal.post(f"{ACCOUNTS}/A/close"), 409, "account_in_use")
    await journal.move("A", "B", "10.00")
    hold = await journal.hold("B", "A", "1.00")
    assert_problem(await journal.post(f"{ACCOUNTS}/A/close"), 409, "account_in_use")
    assert (await journal.end(hold, "void")).status_code == 200
    closed = await journal.post(f"{ACCOUNTS}/A/close")
    assert (closed.status_code, closed.json()["state"]) == (200, "closed")
    assert closed.json()["closed_at"] is not None
    assert (await journal.post(f"{ACCOUNTS}/A/close")).content == closed.content
    assert_problem(await journal.try_to_move("B", "A", "1.00"), 409, "account_closed")
    assert_problem(await journal.try_to_move("B", "A", "1.00", status="pending"), 409, "account_closed")
    reopened = await journal.post(f"{ACCOUNTS}/A/reopen")
    assert (reopened.status_code, reopened.json()["state"], reopened.json()["closed_at"]) == (200, "open", None)
    await journal.move("B", "A", "1.00")


@pytest.mark.parametrize("path", ["", "/balances", "/close", "/reopen"])
async def test_an_unknown_account_is_not_found(journal: Journal, path: str) -> None:
    url = f"{ACCOUNTS}/NOWHERE{path}"
    response = await (journal.get(url) if path in ("", "/balances") else journal.post(url))
    assert_problem(response, 404, "account_not_found")
    assert_problem(await journal.patch("NOWHERE", name="x"), 404, "account_not_found")


async def test_a_code_that_cannot_be_is_refused_by_name(journal: Journal) -> None:
    assert_problem(await journal.get(f"{ACCOUNTS}/a"), 422, None, "code")


@pytest.mark.parametrize("role", ["ops", "sales"])
async def test_who_may_only_read_the_ledger_changes_nothing(api: Api, tenant: str, role: str) -> None:
    headers = api.headers(tenant, role=role) | {"Idempotency-Key": "k"}
    assert_problem(await api.client.post(ACCOUNTS, json=WALLET, headers=headers), 403, "permission_denied")
    status = (await api.client.get(ACCOUNTS, headers=headers)).status_code
    assert status == (200 if role == "ops" else 403)


async def test_a_post_needs_its_key(journal: Journal) -> None:
    response = await journal.client.post(ACCOUNTS, json=WALLET, headers=journal.headers)
    assert_problem(response, 400, "missing_header", "Idempotency-Key")


async def test_the_balance_of_cash_is_what_payments_posted_less_what_holds_could_take(
    journal: Journal, database: Database, tenant: str
) -> None:
    await settle_a_payment(database, tenant)
    await journal.account("BANK", "asset")
    hold = await journal.hold("BANK", "CASH", "30.00")
    found = await journal.balance("CASH")
    assert (found["posted"], found["pending_credits"], found["available"]) == ("100.00", "30.00", "70.00")
    await settle_a_payment(database, tenant)
    assert (await journal.end(hold, "post")).status_code == 200
    found = await journal.balance("CASH")
    assert (found["posted"], found["pending_credits"], found["available"]) == ("170.00", "0.00", "170.00")


async def test_changes_of_accounts_leave_an_event_each_and_an_audit_row_each(
    journal: Journal, database: Database, tenant: str
) -> None:
    await journal.account("A")
    await journal.patch("A", name="B")
    await journal.post(f"{ACCOUNTS}/A/close")
    await journal.post(f"{ACCOUNTS}/A/reopen")
    async with database.transaction([tenant]) as conn:
        events = await conn.execute("SELECT event_type, sequence, payload FROM outbox_events ORDER BY sequence")
        found = await events.fetchall()
        audit = await conn.execute("SELECT action, target FROM audit_log WHERE action LIKE 'account.%' ORDER BY id")
        rows = await audit.fetchall()
    assert [(type_, sequence) for type_, sequence, _ in found] == [
        ("ledger.account.created", 1),
        ("ledger.account.closed", 2),
        ("ledger.account.reopened", 3),
    ]
    assert found[0][2] | {"occurred_at": "", "correlation_id": ""} == {
        "code": "A",
        "tenant_id": tenant,
        "name": "Account A",
        "type": "liability",
        "occurred_at": "",
        "correlation_id": "",
    }
    assert rows == [(f"account.{verb}", "A") for verb in ("create", "update", "close", "reopen")]
