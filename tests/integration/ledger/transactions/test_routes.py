"""Transactions over HTTP: posted, held, reversed, in batches; each refusal of the contract once.

Long because it has a case for each refusal.
"""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.ledger.transactions.expiry import sweep_expired_holds
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import relay_role
from tests.integration.books import settle_a_payment
from tests.integration.conftest import Api, opened
from tests.integration.http import assert_problem
from tests.integration.ledger.journal import TRANSACTIONS, Journal

pytestmark = pytest.mark.anyio

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
async def books(journal: Journal) -> Journal:
    """A bank account without limits, and two wallets that are never overdrawn; one holds 100.00 BRL."""
    await journal.account("BANK", "asset")
    await journal.wallet("WALLET.A")
    await journal.wallet("WALLET.B")
    await journal.move("BANK", "WALLET.A", "100.00")
    return journal


# ----------------------------------------------------------------------------------------------------------------------
# Recording


async def test_a_transaction_can_be_read_where_location_says(books: Journal) -> None:
    asked = {
        "reference": "deposit-1",
        "description": "Deposit",
        "metadata": {"channel": "app", "a": "b"},
        "effective_at": "2026-01-31T10:00:00-03:00",
        "postings": [{"debit": "BANK", "credit": "WALLET.B", "amount": 10.5, "currency": "BRL"}],
    }
    response = await books.post(TRANSACTIONS, asked)
    assert response.status_code == 201, response.text
    body = response.json()
    assert response.headers["Location"] == f"{TRANSACTIONS}/{body['id']}"
    posting = {"debit": "BANK", "credit": "WALLET.B", "amount": "10.50", "currency": "BRL"}
    assert body == {
        "id": body["id"],
        "kind": "transaction",
        "status": "POSTED",
        "reference": "deposit-1",
        "description": "Deposit",
        "postings": [posting],
        "lines": [
            {"account": "BANK", "side": "DEBIT", "amount": "10.50", "currency": "BRL"},
            {"account": "WALLET.B", "side": "CREDIT", "amount": "10.50", "currency": "BRL"},
        ],
        "recorded_at": body["recorded_at"],
        "effective_at": "2026-01-31T13:00:00Z",
        "book_date": "2026-01-31",
        "expires_at": None,
        "metadata": {"channel": "app", "a": "b"},
        "reverses": None,
        "reversed_by": None,
        "reason": None,
        "released": [],
        "balances_after": [
            {
                "account": "WALLET.B",
                "currency": "BRL",
                "posted": "10.50",
                "pending_debits": "0.00",
                "pending_credits": "0.00",
                "available": "10.50",
                "version": 1,
            }
        ],
        "dry_run": False,
    }
    read = await books.get(response.headers["Location"])
    assert (read.status_code, read.content) == (200, response.content)


async def test_a_transaction_is_an_entry_of_no_payment(books: Journal, database: Database, tenant: str) -> None:
    moved = await books.move("WALLET.A", "WALLET.B", "1.00")
    await settle_a_payment(database, tenant)
    payment, entry, _ = (await books.get("/v1/ledger/entries")).json()
    assert "transaction_id" not in payment
    assert entry == {
        "id": entry["id"],
        "payment_intent_id": None,
        "posted_at": moved["recorded_at"],
        "lines": [
            {"side": "DEBIT", "account": "WALLET.A", "amount": "1.00", "currency": "BRL"},
            {"side": "CREDIT", "account": "WALLET.B", "amount": "1.00", "currency": "BRL"},
        ],
        "transaction_id": moved["id"],
    }


async def test_lines_are_paired_into_postings_in_their_order(books: Journal) -> None:
    def line(account: str, side: str, amount: str, currency: str = "BRL") -> dict[str, str]:
        return {"account": account, "side": side, "amount": amount, "currency": currency}

    lines = [
        line("BANK", "DEBIT", "70.00"),
        line("CASH", "DEBIT", "30.00"),
        line("BANK", "CREDIT", "9", "JPY"),
        line("WALLET.A", "CREDIT", "50.00"),
        line("WALLET.B", "CREDIT", "50.00"),
        line("CASH", "DEBIT", "9", "JPY"),
    ]
    response = await books.post(TRANSACTIONS, {"lines": lines})
    assert response.status_code == 201, response.text
    assert [tuple(posting.values()) for posting in response.json()["postings"]] == [
        ("BANK", "WALLET.A", "50.00", "BRL"),
        ("BANK", "WALLET.B", "20.00", "BRL"),
        ("CASH", "WALLET.B", "30.00", "BRL"),
        ("CASH", "BANK", "9", "JPY"),
    ]
    assert Counter(map(str, response.json()["lines"])) == Counter(map(str, lines))


POSTING = {"debit": "BANK", "credit": "WALLET.B", "amount": "1.00", "currency": "BRL"}
LINES = [
    {"account": "BANK", "side": "DEBIT", "amount": "1.00", "currency": "BRL"},
    {"account": "WALLET.B", "side": "CREDIT", "amount": "1.00", "currency": "BRL"},
]
CONDITION = {"account": "BANK", "currency": "BRL"}


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        ({}, "invalid_request", "#"),
        ({"postings": [POSTING], "lines": LINES}, "invalid_request", "#"),
        ({"postings": []}, "invalid_request", "#/postings"),
        ({"postings": [POSTING] * 101}, "invalid_request", "#/postings"),
        ({"postings": [{**POSTING, "amount": "0"}]}, "invalid_amount", "#/postings/0/amount"),
        ({"postings": [{**POSTING, "amount": "-1.00"}]}, "invalid_amount", "#/postings/0/amount"),
        ({"postings": [POSTING, {**POSTING, "amount": "1.001"}]}, "invalid_amount", "#/postings/1/amount"),
        ({"postings": [{**POSTING, "currency": "XXX"}]}, "unknown_currency", "#/postings/0/currency"),
        ({"postings": [{**POSTING, "credit": "BANK"}]}, "invalid_request", "#/postings/0/credit"),
        ({"postings": [{**POSTING, "debit": "nobody"}]}, "invalid_request", "#/postings/0/debit"),
        ({"postings": [POSTING, {**POSTING, "credit": "NOBODY"}]}, "unknown_account", "#/postings/1/credit"),
        ({"lines": [*LINES[:1], {**LINES[1], "account": "NOBODY"}]}, "unknown_account", "#/lines/1/account"),
        ({"lines": LINES[:1]}, "invalid_request", "#/lines"),
        ({"lines": [LINES[0], {**LINES[1], "amount": "0.75"}]}, "unbalanced", "#/lines"),
        ({"lines": [*LINES, {**LINES[0], "currency": "JPY", "amount": 5}]}, "unbalanced", "#/lines"),
        ({"lines": [LINES[0], {**LINES[0], "side": "CREDIT"}]}, "invalid_request", "#/lines/1/account"),
        ({"lines": [LINES[0], {**LINES[1], "side": "left"}]}, "invalid_request", "#/lines/1/side"),
        ({"postings": [POSTING], "reference": ""}, "invalid_request", "#/reference"),
        ({"postings": [POSTING], "reference": "x" * 129}, "invalid_request", "#/reference"),
        ({"postings": [POSTING], "reference": "4111-1111-1111-1111"}, "invalid_request", "#/reference"),
        ({"postings": [POSTING], "description": "4111111111111111"}, "invalid_request", "#/description"),
        ({"postings": [POSTING], "metadata": {"k": "x" * 501}}, "invalid_request", "#/metadata/k"),
        ({"postings": [POSTING], "status": "POSTED"}, "invalid_request", "#/status"),
        ({"postings": [POSTING], "dry_run": "yes"}, "invalid_request", "#/dry_run"),
        ({"postings": [POSTING], "effective_at": "tomorrow"}, "invalid_request", "#/effective_at"),
        ({"postings": [POSTING], "effective_at": "2999-01-01"}, "invalid_request", "#/effective_at"),
        ({"postings": [POSTING], "expires_at": "2999-01-01"}, "invalid_request", "#/expires_at"),
        ({"postings": [POSTING], "status": "pending", "expires_at": "2026-01-01"}, "invalid_request", "#/expires_at"),
        ({"postings": [POSTING], "conditions": [CONDITION]}, "invalid_request", "#/conditions/0"),
        (
            {"postings": [POSTING], "conditions": [{**CONDITION, "available_min": "0.001"}]},
            "invalid_request",
            "#/conditions/0/available_min",
        ),
        (
            {"postings": [POSTING], "conditions": [{**CONDITION, "version": 1, "account": "NOBODY"}]},
            "unknown_account",
            "#/conditions/0/account",
        ),
        ({"postings": [POSTING], "kind": "reversal"}, "invalid_request", "#/kind"),
    ],
)
async def test_what_is_wrong_with_a_transaction_is_said_of_its_field(
    books: Journal, body: dict[str, Any], code: str, place: str
) -> None:
    assert_problem(await books.post(TRANSACTIONS, body), 422, code, place)
    assert len((await books.get(TRANSACTIONS)).json()) == 1


async def test_unbalanced_lines_say_by_how_much(books: Journal) -> None:
    response = await books.post(TRANSACTIONS, {"lines": [LINES[0], {**LINES[1], "amount": "0.75"}]})
    assert response.json()["detail"] == "In BRL the debits exceed the credits by 0.25."


async def test_a_minimum_and_a_maximum_hold_for_the_whole_transaction_not_posting_by_posting(books: Journal) -> None:
    assert_problem(await books.try_to_move("WALLET.A", "BANK", "100.01"), 409, "insufficient_funds")
    # Through a wallet that has nothing: by the end it has nothing again.
    postings = [
        {"debit": "WALLET.B", "credit": "BANK", "amount": "100.00", "currency": "BRL"},
        {"debit": "WALLET.A", "credit": "WALLET.B", "amount": "100.00", "currency": "BRL"},
    ]
    held = await books.post(TRANSACTIONS, {"postings": postings, "status": "pending"})
    assert held.status_code == 201, held.text
    assert (await books.end(held.json(), "post")).status_code == 200
    assert [(await books.balance(f"WALLET.{name}"))["posted"] for name in "AB"] == ["0.00", "0.00"]
    await books.wallet("SMALL", None, "10.00")
    assert_problem(await books.try_to_move("BANK", "SMALL", "10.01"), 409, "limit_exceeded")
    await books.move("BANK", "SMALL", "10.00")


async def test_limits_of_accounts_that_grow_by_debits_are_on_that_side(journal: Journal) -> None:
    await journal.account("TILL", "asset", limits=[{"currency": "BRL", "balance_min": "0", "balance_max": "50.00"}])
    await journal.account("SALES", "revenue")
    assert_problem(await journal.try_to_move("SALES", "TILL", "0.01"), 409, "insufficient_funds")
    assert_problem(await journal.try_to_move("TILL", "SALES", "50.01"), 409, "limit_exceeded")
    await journal.move("TILL", "SALES", "50.00")


async def test_a_reference_is_taken_for_ever_and_leads_to_its_transaction(books: Journal) -> None:
    first = await books.move("BANK", "WALLET.B", "1.00", reference="r-1")
    again = await books.try_to_move("BANK", "WALLET.B", "1.00", reference="r-1")
    assert_problem(again, 409, "reference_taken")
    assert again.headers["Location"] == f"{TRANSACTIONS}/{first['id']}"


async def test_of_many_at_once_with_one_reference_one_is_recorded(books: Journal, other_process: Any) -> None:
    # Of accounts without limits: nothing but the reference keeps two batches apart.
    body = {"postings": [{**POSTING, "credit": "CASH"}], "reference": "r-1"}

    async def send(number: int) -> Any:
        client = books.client if number % 2 else other_process
        headers = books.headers | {"Idempotency-Key": f"k-{number}"}
        return await client.post(TRANSACTIONS, json=body, headers=headers)

    responses = await asyncio.gather(*map(send, range(10)))
    assert Counter(response.status_code for response in responses) == {201: 1, 409: 9}
    assert (await books.balance("CASH"))["posted"] == "-1.00"
    assert len((await books.get("/v1/ledger/entries")).json()) == 2


async def test_a_refused_transaction_takes_no_reference(books: Journal) -> None:
    refused = await books.try_to_move("WALLET.B", "BANK", "1.00", reference="r-1")
    assert_problem(refused, 409, "insufficient_funds")
    await books.move("WALLET.A", "BANK", "1.00", reference="r-1")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"account": "WALLET.A", "available_min": "100.00"}, True),
        ({"account": "WALLET.A", "available_min": "100.01"}, False),
        ({"account": "WALLET.A", "version": 1}, True),
        ({"account": "WALLET.A", "version": 0}, False),
        ({"account": "WALLET.A", "version": 1, "available_min": "1000.00"}, False),
        ({"account": "BANK", "available_min": "100.00"}, True),
        ({"account": "BANK", "available_min": "100.01"}, False),
        ({"account": "BANK", "available_min": "-5.00"}, True),
        ({"account": "CASH", "available_min": "0.00"}, True),
        ({"account": "CASH", "available_min": "0.01"}, False),
        ({"account": "CASH", "version": 0}, True),
    ],
)
async def test_a_condition_is_asked_before_anything_moves(
    books: Journal, condition: dict[str, Any], holds: bool
) -> None:
    conditions = [{"account": "BANK", "currency": "BRL", "available_min": "0"}, {"currency": "BRL", **condition}]
    response = await books.try_to_move("WALLET.A", "BANK", "1.00", conditions=conditions)
    if holds:
        assert response.status_code == 201, response.text
    else:
        assert_problem(response, 409, "condition_failed")
        assert response.json()["errors"][0]["pointer"].startswith("#/conditions/1/")
        assert "found" in response.json()["detail"]


async def test_a_version_that_was_read_holds_until_the_next_change(books: Journal) -> None:
    for account, change in (("BANK", ("WALLET.A", "BANK")), ("WALLET.B", ("BANK", "WALLET.B"))):
        version = (await books.balance("BANK"))["version"] if account == "BANK" else 0
        condition = {"account": account, "currency": "BRL", "version": version}
        await books.move(*change, "1.00", conditions=[condition])
        assert (await books.balance(account))["version"] == version + 1
        again = await books.try_to_move(*change, "1.00", conditions=[condition])
        assert_problem(again, 409, "condition_failed")


async def test_a_dry_run_says_what_would_be_and_changes_nothing(books: Journal) -> None:
    before = await books.balance("WALLET.A")
    bank = {"account": "BANK", "currency": "BRL", "available_min": "0"}
    for status in ("posted", "pending"):
        response = await books.try_to_move(
            "WALLET.A", "BANK", "40.00", dry_run=True, status=status, reference="r", conditions=[bank]
        )
        assert response.status_code == 200, response.text
        body = response.json()
        assert (body["id"], body["dry_run"], body["status"]) == (None, True, status.upper())
        assert body["balances_after"][0]["available"] == "60.00"
        assert "Location" not in response.headers
    assert await books.balance("WALLET.A") == before
    assert len((await books.get(TRANSACTIONS)).json()) == 1
    refused = await books.try_to_move("WALLET.A", "BANK", "100.01", dry_run=True)
    assert_problem(refused, 409, "insufficient_funds")
    await books.move("WALLET.A", "BANK", "100.00", reference="r")


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_repetition_gets_the_first_response_and_moves_nothing(books: Journal, dry_run: bool) -> None:
    body = {"postings": [POSTING], "dry_run": dry_run}
    first = await books.post(TRANSACTIONS, body, key="k")
    again = await books.post(TRANSACTIONS, {**body, "postings": [{**POSTING, "amount": 1}]}, key="k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert_problem(await books.post(TRANSACTIONS, {**body, "description": "x"}, key="k"), 422, "idempotency_key_reused")


async def test_another_tenants_accounts_are_unknown(books: Journal, api: Api, new_tenant: Any) -> None:
    other = Journal(api, await new_tenant())
    assert_problem(await other.try_to_move("BANK", "CASH", "1.00"), 422, "unknown_account", "#/postings/0/debit")
    [transaction] = (await books.get(TRANSACTIONS)).json()
    assert_problem(await other.get(f"{TRANSACTIONS}/{transaction['id']}"), 404, "transaction_not_found")


async def test_a_policy_binds_the_sum_of_the_debits_in_its_currency(books: Journal, api: Api, tenant: str) -> None:
    policy = {"effect": "deny", "actions": ["ledger:write"], "roles": ["admin"], "hours": None}
    admin = api.headers(tenant, role="admin")
    (await api.client.put("/v1/admin/policies/no-ledger", json=policy, headers=admin)).raise_for_status()
    refused = await Journal(api, tenant).try_to_move("BANK", "WALLET.B", "1.00")
    assert_problem(refused, 403, "policy_denied")


# ----------------------------------------------------------------------------------------------------------------------
# Holds


async def test_what_is_held_is_not_available_and_not_in_the_books(books: Journal) -> None:
    hold = await books.hold("WALLET.A", "WALLET.B", "60.00", expires_at=in_seconds(60))
    assert (hold["status"], hold["released"]) == ("PENDING", [])
    source, target = await books.balance("WALLET.A"), await books.balance("WALLET.B")
    assert (source["posted"], source["pending_debits"], source["available"]) == ("100.00", "60.00", "40.00")
    assert (target["posted"], target["pending_credits"], target["available"]) == ("0.00", "60.00", "0.00")
    assert len((await books.get("/v1/ledger/entries")).json()) == 1
    assert_problem(await books.try_to_move("WALLET.A", "BANK", "40.01"), 409, "insufficient_funds")
    # What is to come cannot be spent.
    assert_problem(await books.try_to_move("WALLET.B", "BANK", "0.01"), 409, "insufficient_funds")
    posted = await books.end(hold, "post")
    assert posted.status_code == 200, posted.text
    assert posted.json() | {"balances_after": 0} == {**hold, "status": "POSTED", "balances_after": 0}
    assert (await books.get(f"{TRANSACTIONS}/{hold['id']}")).content == posted.content
    source, target = await books.balance("WALLET.A"), await books.balance("WALLET.B")
    assert (source["posted"], source["pending_debits"], source["available"]) == ("40.00", "0.00", "40.00")
    assert (target["posted"], target["pending_credits"], target["available"]) == ("60.00", "0.00", "60.00")
    assert len((await books.get("/v1/ledger/entries")).json()) == 2


async def test_a_pending_credit_counts_towards_the_maximum(books: Journal) -> None:
    await books.wallet("SMALL", None, "10.00")
    await books.hold("BANK", "SMALL", "10.00")
    assert_problem(await books.try_to_move("BANK", "SMALL", "0.01"), 409, "limit_exceeded")


async def test_less_than_what_is_held_can_be_posted_and_the_rest_is_released(books: Journal) -> None:
    postings = [
        {"debit": "WALLET.A", "credit": "WALLET.B", "amount": "60.00", "currency": "BRL"},
        {"debit": "WALLET.A", "credit": "BANK", "amount": "5.00", "currency": "BRL"},
    ]
    hold = (await books.post(TRANSACTIONS, {"postings": postings, "status": "pending"})).json()
    posted = await books.end(hold, "post", {"amounts": ["45.50", 5]})
    assert posted.status_code == 200, posted.text
    assert posted.json()["postings"] == [{**postings[0], "amount": "45.50"}, postings[1]]
    assert posted.json()["released"] == [{**postings[0], "amount": "14.50"}]
    assert (await books.get(f"{TRANSACTIONS}/{hold['id']}")).content == posted.content
    assert (await books.balance("WALLET.A"))["available"] == "49.50"


@pytest.mark.parametrize(
    ("amounts", "place"),
    [
        ([], "#/amounts"),
        (["1.00", "1.00"], "#/amounts"),
        (["60.01"], "#/amounts/0"),
        (["0"], "#/amounts/0"),
        (["-1"], "#/amounts/0"),
        (["1.001"], "#/amounts/0"),
        ([True], "#/amounts/0"),
    ],
)
async def test_amounts_of_a_post_are_one_for_each_posting_and_at_most_what_is_held(
    books: Journal, amounts: list[Any], place: str
) -> None:
    hold = await books.hold("WALLET.A", "WALLET.B", "60.00")
    assert_problem(await books.end(hold, "post", {"amounts": amounts}), 422, None, place)
    assert (await books.end(hold, "void")).status_code == 200
    # Also when it is not pending any more: the request is wrong whatever became of the hold.
    assert_problem(await books.end(hold, "post", {"amounts": amounts}), 422, None, place)


@pytest.mark.parametrize("verb", ["post", "void"])
async def test_a_hold_ends_once(books: Journal, verb: str) -> None:
    hold = await books.hold("WALLET.A", "WALLET.B", "60.00")
    responses = await asyncio.gather(*(books.end(hold, each) for each in (verb, "post", "void", verb)))
    assert sorted(response.status_code for response in responses) == [200, 409, 409, 409]
    assert {response.json().get("code") for response in responses} == {None, "not_pending"}
    balance = await books.balance("WALLET.A")
    assert balance["pending_debits"] == "0.00"
    assert balance["posted"] in ("100.00", "40.00")


async def test_from_its_time_on_a_hold_neither_counts_nor_can_be_ended_otherwise(
    books: Journal, database: Database, database_url: str, tenant: str
) -> None:
    hold = await books.hold("WALLET.A", "WALLET.B", "60.00", expires_at=in_seconds(0.3))
    assert (await books.balance("WALLET.A"))["available"] == "40.00"
    await asyncio.sleep(0.35)
    # Nobody has swept it.
    assert (await books.balance("WALLET.A"))["available"] == "100.00"
    assert_problem(await books.end(hold, "post"), 409, "hold_expired")
    assert_problem(await books.end(hold, "void"), 409, "hold_expired")
    # A movement that it would have stood in the way of ends it.
    await books.move("WALLET.A", "BANK", "100.00")
    expired = (await books.get(f"{TRANSACTIONS}/{hold['id']}")).json()
    assert (expired["status"], expired["postings"]) == ("EXPIRED", hold["postings"])
    assert_problem(await books.end(hold, "post"), 409, "hold_expired")


async def test_the_worker_sweeps_what_has_expired(
    books: Journal, api: Api, database: Database, database_url: str, tenant: str
) -> None:
    hold = await books.hold("BANK", "WALLET.B", "60.00", expires_at=in_seconds(0.2))
    kept = await books.hold("BANK", "WALLET.B", "1.00", expires_at=in_seconds(60))
    await asyncio.sleep(0.25)
    async with opened(Database(database_url, role=relay_role(database_url), pool_size_max=1)) as outbox:
        await sweep_expired_holds(outbox, api.commands)
        await sweep_expired_holds(outbox, api.commands)
    statuses = [(await books.get(f"{TRANSACTIONS}/{each['id']}")).json()["status"] for each in (hold, kept)]
    assert statuses == ["EXPIRED", "PENDING"]
    assert (await books.balance("WALLET.B"))["pending_credits"] == "1.00"
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            "SELECT principal, correlation_id FROM audit_log WHERE action = 'transaction.expire'"
        )
        [(principal, correlation_id)] = await cursor.fetchall()
        cursor = await conn.execute("SELECT correlation_id FROM ledger_transactions WHERE id = %s", [hold["id"]])
        assert (principal, (correlation_id,)) == ("worker", await cursor.fetchone())


# ----------------------------------------------------------------------------------------------------------------------
# Reversals and notes


async def test_a_reversal_mirrors_the_first_and_each_names_the_other(books: Journal) -> None:
    first = await books.move("WALLET.A", "WALLET.B", "30.00", effective_at="2026-01-31T12:00:00Z", reference="r")
    response = await books.end(first, "reverse", {"effective_at": "original", "reason": "wrong wallet"})
    assert response.status_code == 201, response.text
    reversal = response.json()
    assert response.headers["Location"] == f"{TRANSACTIONS}/{reversal['id']}"
    assert (reversal["kind"], reversal["status"], reversal["reverses"]) == ("reversal", "POSTED", first["id"])
    assert (reversal["reason"], reversal["reference"]) == ("wrong wallet", None)
    assert reversal["effective_at"] == first["effective_at"]
    assert reversal["postings"] == [{**first["postings"][0], "debit": "WALLET.B", "credit": "WALLET.A"}]
    assert (await books.get(f"{TRANSACTIONS}/{reversal['id']}")).content == response.content
    assert (await books.get(f"{TRANSACTIONS}/{first['id']}")).json() == {**first, "reversed_by": reversal["id"]}
    assert (await books.balance("WALLET.A"))["posted"] == "100.00"
    assert_problem(await books.end(first, "reverse", {"effective_at": "original"}), 409, "already_reversed")


async def test_of_many_reversals_at_once_one_is_recorded(books: Journal) -> None:
    first = await books.move("WALLET.A", "WALLET.B", "30.00")
    responses = await asyncio.gather(*(books.end(first, "reverse", {"effective_at": "original"}) for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409, 409]
    assert (await books.balance("WALLET.A"))["posted"] == "100.00"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "#/effective_at"),
        ({"effective_at": None}, "#/effective_at"),
        ({"effective_at": "now"}, "#/effective_at"),
        ({"effective_at": "2026-01-31T11:59:59Z"}, "#/effective_at"),
        ({"effective_at": "2999-01-01"}, "#/effective_at"),
        ({"effective_at": "original", "reason": "4111111111111111"}, "#/reason"),
    ],
)
async def test_when_a_reversal_is_effective_has_to_be_said(books: Journal, body: dict[str, Any], place: str) -> None:
    first = await books.move("WALLET.A", "WALLET.B", "30.00", effective_at="2026-01-31T12:00:00Z")
    assert_problem(await books.end(first, "reverse", body), 422, None, place)


async def test_only_what_is_posted_can_be_reversed_and_limits_hold_for_it(books: Journal) -> None:
    original = {"effective_at": "original"}
    hold = await books.hold("WALLET.A", "WALLET.B", "30.00")
    assert_problem(await books.end(hold, "reverse", original), 409, "not_posted")
    await books.end(hold, "post")
    await books.move("WALLET.B", "BANK", "0.01")
    assert_problem(await books.end(hold, "reverse", original), 409, "insufficient_funds")
    voided = await books.hold("WALLET.A", "WALLET.B", "1.00")
    await books.end(voided, "void")
    assert_problem(await books.end(voided, "reverse", original), 409, "not_posted")


async def test_a_reversal_can_be_reversed(books: Journal) -> None:
    first = await books.move("WALLET.A", "WALLET.B", "30.00")
    reversal = (await books.end(first, "reverse", {"effective_at": "original"})).json()
    again = await books.end(reversal, "reverse", {"effective_at": in_seconds(0)})
    assert again.status_code == 201, again.text
    assert again.json()["postings"] == first["postings"]
    assert (await books.balance("WALLET.A"))["posted"] == "70.00"


async def test_what_must_be_said_later_is_a_note_beside_the_facts(books: Journal) -> None:
    first = await books.move("WALLET.A", "WALLET.B", "30.00")
    for text in ("First.", "Second,\non two lines."):
        response = await books.end(first, "notes", {"text": text})
        assert response.status_code == 201, response.text
        assert response.json()["text"] == text
    notes = (await books.get(f"{TRANSACTIONS}/{first['id']}/notes")).json()
    assert [note["text"] for note in notes] == ["First.", "Second,\non two lines."]
    assert {note["transaction_id"] for note in notes} == {first["id"]}
    for text in ("", "x" * 2001, "4111 1111 1111 1111", "\x00"):
        assert_problem(await books.end(first, "notes", {"text": text}), 422, None, "#/text")


@pytest.mark.parametrize(
    ("verb", "body"),
    [("post", None), ("void", None), ("reverse", {"effective_at": "original"}), ("notes", {"text": "x"})],
)
async def test_an_unknown_transaction_is_not_found(books: Journal, verb: str, body: Any) -> None:
    assert_problem(await books.end({"id": NOBODY}, verb, body), 404, "transaction_not_found")
    if verb == "notes":
        assert_problem(await books.get(f"{TRANSACTIONS}/{NOBODY}/notes"), 404, "transaction_not_found")


# ----------------------------------------------------------------------------------------------------------------------
# Batches


def moving(debit: str, credit: str, amount: str, **more: Any) -> dict[str, Any]:
    return {"postings": [{"debit": debit, "credit": credit, "amount": amount, "currency": "BRL"}], **more}


async def test_each_of_a_batch_sees_what_those_before_it_left(books: Journal) -> None:
    transactions = [
        moving("WALLET.A", "WALLET.B", "100.00", reference="a"),
        moving("WALLET.A", "BANK", "0.01"),
        moving("WALLET.B", "BANK", "100.00", dry_run=True),
        moving("WALLET.B", "BANK", "60.00", status="pending"),
        moving("WALLET.B", "BANK", "40.01"),
        moving("WALLET.B", "BANK", "40.00"),
        moving("BANK", "NOBODY", "1.00"),
        {**moving("BANK", "WALLET.A", "1.00"), "tip": 1},
        moving("BANK", "WALLET.A", "1.00", reference="a"),
        "no object",
    ]
    response = await books.post(f"{TRANSACTIONS}/batch", {"mode": "independent", "transactions": transactions})
    assert response.status_code == 200, response.text
    outcomes = response.json()["outcomes"]
    assert [
        (outcome["status"], outcome["problem"]["code"] if "problem" in outcome else outcome["transaction"]["status"])
        for outcome in outcomes
    ] == [
        (201, "POSTED"),
        (409, "insufficient_funds"),
        (200, "POSTED"),
        (201, "PENDING"),
        (409, "insufficient_funds"),
        (201, "POSTED"),
        (422, "unknown_account"),
        (422, "invalid_request"),
        (409, "reference_taken"),
        (422, "invalid_request"),
    ]
    assert outcomes[6]["problem"]["errors"][0]["pointer"] == "#/transactions/6/postings/0/credit"
    assert outcomes[7]["problem"]["errors"][0]["pointer"] == "#/transactions/7/tip"
    assert (await books.balance("WALLET.B"))["available"] == "0.00"
    shown = (await books.get(f"{TRANSACTIONS}/{outcomes[0]['transaction']['id']}")).json()
    assert shown == outcomes[0]["transaction"]


@pytest.mark.parametrize(
    ("refused", "status", "code"),
    [
        (moving("WALLET.A", "BANK", "100.01"), 409, "insufficient_funds"),
        (moving("WALLET.A", "BANK", "1.00", reference="a"), 409, "reference_taken"),
        (moving("WALLET.A", "NOBODY", "1.00"), 422, "unknown_account"),
        (moving("WALLET.A", "BANK", "0"), 422, "invalid_amount"),
        (
            moving("WALLET.A", "BANK", "1", conditions=[{"account": "WALLET.A", "currency": "BRL", "version": 9}]),
            409,
            "condition_failed",
        ),
    ],
)
async def test_of_an_atomic_batch_all_or_none_are_recorded(
    books: Journal, refused: dict[str, Any], status: int, code: str
) -> None:
    good = [moving("BANK", "WALLET.B", "1.00", reference="a"), moving("WALLET.B", "BANK", "1.00", reference="b")]
    body = {"mode": "atomic", "transactions": [*good, refused, moving("WALLET.B", "BANK", "1000.00")]}
    response = await books.post(f"{TRANSACTIONS}/batch", body)
    assert_problem(response, status, code)
    assert response.json()["index"] == 2
    assert all(each["pointer"].startswith("#/transactions/2/") for each in response.json().get("errors", []))
    assert len((await books.get(TRANSACTIONS)).json()) == 1
    # None of its references was taken.
    all_good = await books.post(f"{TRANSACTIONS}/batch", {"mode": "atomic", "transactions": good}, key="k")
    assert [outcome["status"] for outcome in all_good.json()["outcomes"]] == [201, 201]
    again = await books.post(f"{TRANSACTIONS}/batch", {"mode": "atomic", "transactions": good}, key="k")
    assert (again.content, again.headers["Idempotent-Replayed"]) == (all_good.content, "true")


async def test_a_thousand_transactions_are_recorded_in_the_order_of_the_request(books: Journal) -> None:
    transactions = [moving("BANK", "WALLET.B", "0.01", reference=f"r-{number}") for number in range(1000)]
    response = await books.post(f"{TRANSACTIONS}/batch", {"mode": "atomic", "transactions": transactions})
    assert response.status_code == 200, response.text
    outcomes = response.json()["outcomes"]
    assert [outcome["transaction"]["reference"] for outcome in outcomes] == [f"r-{number}" for number in range(1000)]
    assert (await books.balance("WALLET.B"))["posted"] == "10.00"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"mode": "both", "transactions": [{}]}, "#/mode"),
        ({"mode": "atomic", "transactions": []}, "#/transactions"),
        ({"mode": "atomic", "transactions": [{}] * 1001}, "#/transactions"),
        ({"transactions": [{}]}, "#/mode"),
    ],
)
async def test_a_batch_says_how_it_is_meant(books: Journal, body: Any, place: str) -> None:
    assert_problem(await books.post(f"{TRANSACTIONS}/batch", body), 422, "invalid_request", place)


# ----------------------------------------------------------------------------------------------------------------------
# Lists


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["hold", "back", "b", "a", "deposit"]),
        ({"account": "WALLET.B"}, ["hold", "back", "b"]),
        ({"account": "WALLET"}, []),
        ({"prefix": "WALLET"}, ["hold", "back", "b", "a", "deposit"]),
        ({"prefix": "FEES"}, ["a"]),
        ({"prefix": "FEE"}, []),
        ({"reference": "b"}, ["b"]),
        ({"status": "pending"}, ["hold"]),
        ({"status": "voided"}, []),
        ({"kind": "reversal"}, ["back"]),
        ({"metadata.n": "1"}, ["a"]),
        ({"effective_to": "2026-02-01"}, ["back", "b"]),
        ({"effective_from": "2026-01-31T12:00:00Z", "effective_to": "2026-02-01"}, ["back", "b"]),
        ({"effective_to": "2026-01-31T12:00:00Z"}, []),
        ({"to": "2026-01-01"}, []),
        ({"from": "2026-01-01", "account": "FEES", "status": "posted"}, ["a"]),
        ({"account": "WALLET.B", "kind": "reversal"}, ["back"]),
    ],
)
async def test_lists_are_filtered_newest_first_page_by_page(
    books: Journal, query: dict[str, str], found: list[str]
) -> None:
    await books.account("FEES", "revenue")
    names = {(await books.get(TRANSACTIONS)).json()[0]["id"]: "deposit"}
    names[(await books.move("WALLET.A", "FEES", "1.00", metadata={"n": "1"}))["id"]] = "a"
    second = await books.move("WALLET.A", "WALLET.B", "2.00", reference="b", effective_at="2026-01-31T12:00:00Z")
    names[second["id"]] = "b"
    names[(await books.end(second, "reverse", {"effective_at": "original"})).json()["id"]] = "back"
    names[(await books.hold("WALLET.A", "WALLET.B", "1.00"))["id"]] = "hold"
    page = await books.get(TRANSACTIONS, limit=2, **query)
    seen = [names[transaction["id"]] for transaction in page.json()]
    while link := page.headers.get("Link"):
        page = await books.client.get(link.partition(">")[0].lstrip("<"), headers=books.headers)
        assert page.status_code == 200, page.text
        seen += [names[transaction["id"]] for transaction in page.json()]
    assert seen == found


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("status=POSTED", "status"),
        ("kind=payment", "kind"),
        ("account=a", "account"),
        ("prefix=A.", "prefix"),
        ("effective_from=x", "effective_from"),
        ("effective_from=2026-01-02&effective_to=2026-01-01", "from"),
        ("metadata.x=4111111111111111", "metadata.x"),
        ("q=1", "q"),
    ],
)
async def test_a_bad_filter_is_refused_by_name(books: Journal, query: str, place: str) -> None:
    response = await books.client.get(f"{TRANSACTIONS}?{query}", headers=books.headers)
    assert_problem(response, 422, None, place)


# ----------------------------------------------------------------------------------------------------------------------
# What it leaves behind


async def test_each_change_leaves_an_event_and_an_audit_row(books: Journal, database: Database, tenant: str) -> None:
    posted = await books.move("WALLET.A", "WALLET.B", "1.00", reference="r", effective_at="2026-01-31T12:00:00Z")
    reversal = (await books.end(posted, "reverse", {"effective_at": "original"})).json()
    hold = await books.hold("WALLET.A", "WALLET.B", "1.00")
    await books.end(hold, "post", {"amounts": ["0.50"]})
    voided = await books.hold("WALLET.A", "WALLET.B", "1.00")
    await books.end(voided, "void")
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            """
            SELECT aggregate_id::text, sequence, event_type, payload FROM outbox_events
            WHERE event_type LIKE 'ledger.transaction.%' ORDER BY created_at, id
            """
        )
        _, *events = await cursor.fetchall()
        cursor = await conn.execute(
            "SELECT action, target FROM audit_log WHERE action LIKE 'transaction.%' ORDER BY at, id"
        )
        _, *audit = await cursor.fetchall()
    assert [event[:3] for event in events] == [
        (posted["id"], 1, "ledger.transaction.posted"),
        (posted["id"], 2, "ledger.transaction.reversed"),
        (hold["id"], 1, "ledger.transaction.pending"),
        (hold["id"], 2, "ledger.transaction.posted"),
        (voided["id"], 1, "ledger.transaction.pending"),
        (voided["id"], 2, "ledger.transaction.voided"),
    ]
    payloads = [event[3] for event in events]
    assert payloads[0] == {
        "transaction_id": posted["id"],
        "tenant_id": tenant,
        "kind": "transaction",
        "reference": "r",
        "correlation_id": payloads[0]["correlation_id"],
        "occurred_at": posted["recorded_at"],
        "effective_at": "2026-01-31T12:00:00Z",
        "postings": posted["postings"],
    }
    assert (payloads[1]["transaction_id"], payloads[1]["reversal_id"]) == (posted["id"], reversal["id"])
    assert payloads[3]["postings"][0]["amount"] == "0.50"
    assert audit == [
        ("transaction.post", posted["id"]),
        ("transaction.reverse", reversal["id"]),
        ("transaction.hold", hold["id"]),
        ("transaction.post", hold["id"]),
        ("transaction.hold", voided["id"]),
        ("transaction.void", voided["id"]),
    ]


async def test_random_transfers_among_limited_accounts_break_no_limit_no_batch_and_meet_in_no_deadlock(
    api: Api, other_process: Any, books: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallets = [f"W{number}" for number in range(8)]
    for wallet in wallets:
        await books.wallet(wallet, "0.00", "30.00")
        await books.move("BANK", wallet, "10.00")
    failures: list[Exception] = []
    run_once = GroupCommit._run_once

    async def watched(commands: GroupCommit, batch: Any) -> Any:
        try:
            return await run_once(commands, batch)
        except Exception as error:
            failures.append(error)
            raise

    monkeypatch.setattr(GroupCommit, "_run_once", watched)

    async def transfer(number: int) -> Any:
        source, target = random.sample(wallets, 2)
        client = books.client if number % 2 else other_process
        body = moving(source, target, f"{random.randint(1, 900) / 100:.2f}")
        if number % 5 == 0:
            body |= {"status": "pending", "expires_at": in_seconds(random.uniform(0.5, 1.5))}
        headers = books.headers | {"Idempotency-Key": uuid4().hex}
        return await client.post(TRANSACTIONS, json=body, headers=headers)

    statuses: Counter[int] = Counter()
    for _ in range(8):
        responses = await asyncio.gather(*(transfer(number) for number in range(60)))
        statuses.update(response.status_code for response in responses)
    # 422 is a hold whose time was over before a busy machine came to it.
    assert {201, 409} <= set(statuses) <= {201, 409, 422}
    # Neither a collision that was run again, nor a batch that was split because of one of its commands.
    assert failures == []
    balances = [await books.balance(wallet) for wallet in wallets]
    assert all(Decimal(each["available"]) >= 0 and Decimal(each["posted"]) <= 30 for each in balances)
    assert sum(Decimal(each["posted"]) for each in balances) == 80
