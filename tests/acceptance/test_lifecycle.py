"""A payment's whole life over real processes: authorized by hand, captured in part, given back; HTTP and commands."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from payments_ledger.cli.session import on_database
from payments_ledger.operations.outbox import find_events
from payments_ledger.process.settings import Settings
from tests.acceptance.client import TENANT, confirm, logged_in, settled
from tests.acceptance.conftest import Engine, command, eventually

PATH = "/v1/payment-intents"


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    return client.post(path, json=body, headers={"Idempotency-Key": str(uuid4())})


def events_of(engine: Engine, payment_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Type and body of the payment's events in their order, all of them published."""

    settings = Settings(_env_file=None, database_url=engine.environment["DATABASE_URL"])

    def found() -> list[Any]:
        return asyncio.run(
            on_database(settings, lambda database: find_events(database, ids=(), aggregate_id=UUID(payment_id)))
        )

    eventually(lambda: {event.state for event in found()} == {"published"})
    return [(event.event_type, event.payload) for event in sorted(found(), key=lambda event: event.sequence)]


def cash(client: httpx.Client) -> dict[str, str]:
    balances = client.get("/v1/ledger/balances").json()
    return next((b for b in balances if (b["account"], b["currency"]) == ("CASH", "CHF")), {"balance": "0.00"})


def test_the_story_of_an_order_authorized_captured_in_part_and_refunded_twice(engine: Engine) -> None:
    with (
        engine.api(),
        engine.worker(),
        logged_in(engine) as shop,
        logged_in(engine, "finance@demo", "finance123") as finance,
    ):
        before = float(cash(shop)["balance"])
        body = {
            "amount": "250.00",
            "currency": "CHF",
            "customer_ref": "CUST-7",
            "capture_method": "manual",
            "description": "Three chairs",
            "metadata": {"order": "A-17"},
        }
        payment = post(shop, PATH, body).raise_for_status().json()
        assert confirm(shop, payment["id"]).json()["amount_capturable"] == "250.00"
        # Two chairs are in stock.
        captured = post(shop, f"{PATH}/{payment['id']}/capture", {"amount": "180.00"}).raise_for_status().json()
        assert (captured["status"], captured["amount_captured"]) == ("AUTHORIZED", "180.00")
        eventually(lambda: settled(shop, payment["id"]))
        # One comes back, then something off the other.
        for amount, reference in (("90.00", f"R-{uuid4()}"), ("15.00", f"R-{uuid4()}")):
            refund = post(finance, f"{PATH}/{payment['id']}/refunds", {"amount": amount, "reference": reference})
            assert refund.raise_for_status().json()["reference"] == reference

        after = shop.get(f"{PATH}/{payment['id']}").json()
        assert (after["status"], after["amount"], after["amount_captured"]) == ("SETTLED", "250.00", "180.00")
        assert (after["amount_refunded"], after["amount_refundable"]) == ("105.00", "75.00")
        assert (after["description"], after["metadata"]) == ("Three chairs", {"order": "A-17"})
        entries = [e for e in shop.get("/v1/ledger/entries").json() if e["payment_intent_id"] == payment["id"]]
        assert [(e["lines"][0]["account"], e["lines"][0]["amount"]) for e in entries] == [
            ("REVENUE", "15.00"),
            ("REVENUE", "90.00"),
            ("CASH", "180.00"),
        ]
        assert float(cash(shop)["balance"]) - before == pytest.approx(75)
        events = events_of(engine, payment["id"])
        assert [event_type for event_type, _ in events] == [
            "payment.intent.created",
            "payment.authorized",
            "payment.capture_requested",
            "payment.settled",
            "payment.refunded",
            "payment.refunded",
        ]
        assert (events[2][1]["amount_released"], events[3][1]["amount"]) == ("70.00", "180.00")
        assert [body["amount_refunded"] for _, body in events[4:]] == ["90.00", "105.00"]


def test_a_payment_that_nobody_confirms_in_time_is_cancelled_within_a_second_or_so(engine: Engine) -> None:
    with engine.api(), engine.worker(), logged_in(engine) as client:
        expires_at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        body = {"amount": 1, "currency": "BRL", "customer_ref": "late", "expires_at": expires_at}
        payment = post(client, PATH, body).raise_for_status().json()

        def status() -> str:
            return str(client.get(f"{PATH}/{payment['id']}").json()["status"])

        eventually(lambda: status() == "CANCELLED")
        assert client.get(f"{PATH}/{payment['id']}").json()["cancellation_reason"] == "expired"
        assert confirm(client, payment["id"]).json()["code"] == "payment_expired"


def test_an_operator_captures_refunds_and_cancels_by_commands(engine: Engine) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        done = command(engine, "payments", *arguments, "--tenant", TENANT, "--json")
        assert done.exit_code == 0, done.output
        first: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
        return first

    with engine.api(), engine.worker(), logged_in(engine) as client:
        body = {"amount": "10.00", "currency": "BRL", "customer_ref": "C", "capture_method": "manual"}
        payment, other = (post(client, PATH, body).json()["id"] for _ in range(2))
        confirm(client, payment)
        assert run("capture", payment, "--amount", "8")["amount_captured"] == "8.00"
        eventually(lambda: settled(client, payment))
        reference = f"R-{uuid4()}"
        assert run("refund", payment, "--amount", "3.00", "--reference", reference)["amount"] == "3.00"
        again = command(engine, "payments", "refund", payment, "--tenant", TENANT, "--reference", reference)
        assert (again.exit_code, "used this reference before" in again.stderr) == (1, True)
        assert run("show", payment)["amount_refundable"] == "5.00"
        assert run("cancel", other, "--reason", "duplicate")["cancellation_reason"] == "duplicate"
        listed = command(
            engine, "payments", "list", "--tenant", TENANT, "--status", "CANCELLED", "--json", "--limit", "1"
        )
        assert json.loads(listed.stdout)["id"] == other
        newest = command(engine, "payments", "list", "--tenant", TENANT, "--customer-ref", "C", "--limit", "5")
        assert payment in newest.stdout
        none = command(engine, "payments", "list", "--tenant", TENANT, "--metadata", "no=thing")
        assert (none.exit_code, none.stdout.strip()) == (0, "There are no such payments.")
        assert command(engine, "payments", "list", "--tenant", TENANT, "--metadata", "no").exit_code == 2
        table = command(engine, "payments", "show", payment, "--tenant", TENANT)
        assert "amount_refundable" in table.stdout
        assert reference in table.stdout
        refused = command(engine, "payments", "cancel", payment, "--tenant", TENANT)
        assert (refused.exit_code, "cannot become CANCELLED" in refused.stderr) == (1, True)
        for wrong in (["--amount", "-1"], ["--amount", "ten"], ["--reference", ""]):
            done = command(engine, "payments", "refund", payment, "--tenant", TENANT, *wrong)
            assert done.exit_code == 2
        assert command(engine, "payments", "show", str(uuid4()), "--tenant", TENANT).exit_code == 1
        assert command(engine, "payments", "show", payment, "--tenant", "nobody").exit_code == 1
