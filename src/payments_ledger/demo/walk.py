"""One payment from request to settlement over HTTP, printed with its entry and balances for a person to read."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table

from payments_ledger.demo.seed import DEMO_USERS

SETTLED_SECONDS_MAX = 15.0
# Well within the default limit of 240 reads a minute, even if the walk uses all its time.
POLL_SECONDS = 0.1


async def walk_one_payment(base_url: str, console: Console) -> bool:
    """Creates, confirms and follows a payment of the demo tenant; True if it settled and the books balance."""
    user = next(user for user in DEMO_USERS if user.role == "ops")
    async with httpx.AsyncClient(base_url=base_url, timeout=10) as client:
        await _until_ready(client)
        credentials = {"email": user.email, "password": user.password, "tenantId": user.tenant_id}
        token = (await _call(client, "POST", "/v1/auth/token", json=credentials))["access_token"]
        client.headers.update({"Authorization": f"Bearer {token}", "X-Tenant-Id": user.tenant_id})

        order = {"amount": "100.00", "currency": "BRL", "customer_ref": "CUST-001"}
        intent = await _call(client, "POST", "/v1/payment-intents", json=order, headers=_new_key())
        steps = [intent]
        path = f"/v1/payment-intents/{intent['id']}"
        steps.append(await _call(client, "POST", f"{path}/confirm", headers=_new_key()))
        steps.append(await _until_settled(client, path))

        entries = await _call(client, "GET", "/v1/ledger/entries")
        entry = next((entry for entry in entries if entry["payment_intent_id"] == intent["id"]), None)
        balances = await _call(client, "GET", "/v1/ledger/balances")

    _print_payment(console, steps)
    if entry:
        _print_entry(console, entry)
    _print_balances(console, balances)
    settled = steps[-1]["status"] == "SETTLED"
    balanced = entry is not None and _balances(entry["lines"]) and _in_balance(balances)
    if settled and balanced:
        console.print("\n[bold green]The payment is SETTLED and the books balance.[/]")
    else:
        console.print(f"\n[bold red]The payment is {steps[-1]['status']}; the books balance: {balanced}.[/]")
    return settled and balanced


async def _until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(SETTLED_SECONDS_MAX):
        while True:
            try:
                if (await client.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(POLL_SECONDS)


async def _until_settled(client: httpx.AsyncClient, path: str) -> Any:
    """The payment once it is SETTLED, or as it is when the time is over."""
    deadline = asyncio.get_running_loop().time() + SETTLED_SECONDS_MAX
    while True:
        intent = await _call(client, "GET", path)
        if intent["status"] == "SETTLED" or asyncio.get_running_loop().time() > deadline:
            return intent
        await asyncio.sleep(POLL_SECONDS)


async def _call(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> Any:
    response = await client.request(method, path, **request)
    if not response.is_success:
        raise RuntimeError(f"{method} {path} returned {response.status_code}: {response.text}")
    return response.json()


def _new_key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def _balances(lines: list[dict[str, str]]) -> bool:
    debited = sum(Decimal(line["amount"]) for line in lines if line["side"] == "DEBIT")
    credited = sum(Decimal(line["amount"]) for line in lines if line["side"] == "CREDIT")
    return debited == credited > 0


def _in_balance(balances: list[dict[str, str]]) -> bool:
    """In every currency, what was debited was credited."""
    net: dict[str, Decimal] = {}
    for balance in balances:
        moved = Decimal(balance["debits_total"]) - Decimal(balance["credits_total"])
        net[balance["currency"]] = net.get(balance["currency"], Decimal(0)) + moved
    return bool(net) and not any(net.values())


def _print_payment(console: Console, steps: list[dict[str, str]]) -> None:
    last = steps[-1]
    table = Table(title=f"Payment {last['id']}", title_justify="left", title_style="bold")
    for column in ("status", "at", "amount", "customer"):
        table.add_column(column, justify="right" if column == "amount" else "left")
    for step in steps:
        table.add_row(step["status"], step["updated_at"], f"{step['amount']} {step['currency']}", step["customer_ref"])
    console.print(table)


def _print_entry(console: Console, entry: dict[str, Any]) -> None:
    table = Table(title=f"Ledger entry of {entry['posted_at']}", title_justify="left", title_style="bold")
    for column in ("account", "debit", "credit", "currency"):
        table.add_column(column, justify="right" if column in ("debit", "credit") else "left")
    for line in entry["lines"]:
        debit, credit = (line["amount"], "") if line["side"] == "DEBIT" else ("", line["amount"])
        table.add_row(line["account"], debit, credit, line["currency"])
    console.print(table)


def _print_balances(console: Console, balances: list[dict[str, str]]) -> None:
    table = Table(title="Balances of the tenant", title_justify="left", title_style="bold")
    for column in ("account", "type", "debits", "credits", "balance", "currency"):
        table.add_column(column, justify="right" if column in ("debits", "credits", "balance") else "left")
    for balance in balances:
        table.add_row(
            balance["account"],
            balance["type"],
            balance["debits_total"],
            balance["credits_total"],
            balance["balance"],
            balance["currency"],
        )
    console.print(table)
