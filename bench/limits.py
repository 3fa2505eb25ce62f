"""What the database can do without us: one transaction a step by pgbench, and the use cases over batches, no HTTP."""

import asyncio
import re
import subprocess
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from bench.servers import Books, Installation
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.idempotency import Key, Keyed, StoredResponse, fingerprint, respond_once
from payments_ledger.demo.embedded_postgres import PORT, find_programs
from payments_ledger.errors import Rejected
from payments_ledger.ledger.currencies import wait_for_currencies
from payments_ledger.money import Money
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.schemas import payment_body
from payments_ledger.payments.use_cases import (
    ConfirmPayment,
    CreatePayments,
    NewPayment,
    SettlePayment,
    confirm_payments,
    create_payments,
    settle_payments,
)
from payments_ledger.postgres.database import Database
from payments_ledger.postgres.roles import runtime_role
from payments_ledger.telemetry.tracing import Trace

SCRIPTS = Path(__file__).with_name("pgbench")
# As many as 64 connections find waiting at once in the database; more only wait for each other there.
PGBENCH_CLIENTS = 16
BATCH_SIZE = 50
AMOUNT = 10_000
KEY_LIFETIME_SECONDS = 86_400


def pgbench(installation: Installation, books: Books, *, settle: bool, seconds: float) -> float:
    """Limit (b): payments a second with one transaction a step: create and confirm, or all three steps."""
    with books.superuser() as conn:
        conn.execute("CREATE SEQUENCE IF NOT EXISTS bench_numbers CACHE 1000")
        conn.execute("GRANT ALL ON SEQUENCE bench_numbers TO app, PUBLIC")
    steps = ("create_and_confirm.sql", "settle.sql") if settle else ("create_and_confirm.sql",)
    script = installation.folder / "pgbench.sql"
    script.write_text("".join((SCRIPTS / name).read_text() for name in steps))
    command = [
        *(str(find_programs() / "pgbench"), "-h", installation.postgres_socket(), "-p", str(PORT), "-U", "app"),
        *("-n", "-M", "prepared", "-c", str(PGBENCH_CLIENTS), "-j", "2", "-T", str(max(round(seconds), 1))),
        *("-f", str(script), books.name),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: ([1-9][0-9]*)", done.stdout, re.MULTILINE)
    if done.returncode or not found or failed:
        raise RuntimeError(f"pgbench: {done.stdout}{done.stderr}")
    return float(found.group(1))


class SetBased:
    """Limit (c): the engine's own use cases over batches of 50, through psycopg, one transaction a step."""

    def __init__(self, books: Books, *, row_security: bool = True) -> None:
        """Without `row_security` it is a superuser whom no policy binds."""
        if row_security:
            self._database = Database(books.url, role=runtime_role(books.url), pool_size_max=2)
        else:
            self._database = Database(books.superuser_url, role=None, pool_size_max=2)
        self._tenants = [caller.tenant_id for caller in books.callers]

    async def __aenter__(self) -> "SetBased":
        await self._database.open()
        await wait_for_currencies(self._database)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    async def run_batch(self) -> float:
        """Takes 50 payments of all tenants to SETTLED; returns the seconds it took."""
        origin = Origin("bench", "127.0.0.1", Trace("corr-bench"))
        money = Money(AMOUNT, "BRL")
        begin = time.perf_counter()
        creates = [
            CreatePayments(
                self._tenants[number % len(self._tenants)], (NewPayment(uuid7(), money, "CUST-001"),), origin
            )
            for number in range(BATCH_SIZE)
        ]
        async with self._database.transaction(self._tenants) as conn:
            _require_success(await respond_once(conn, [_create(create) for create in creates]))
        confirms = [_confirm(ConfirmPayment(create.tenant_id, _id(create), origin)) for create in creates]
        async with self._database.transaction(self._tenants) as conn:
            _require_success(await respond_once(conn, confirms))
        settles = [SettlePayment(create.tenant_id, _id(create), origin) for create in creates]
        async with self._database.transaction(self._tenants) as conn:
            _require_success(await settle_payments(conn, settles))
        return time.perf_counter() - begin

    async def run(self, seconds: float) -> float:
        """Payments a second through all steps."""
        end = time.perf_counter() + seconds
        taken = 0.0
        batches = 0
        while time.perf_counter() < end:
            taken += await self.run_batch()
            batches += 1
        return batches * BATCH_SIZE / taken


def set_based(books: Books, *, seconds: float) -> float:
    async def run() -> float:
        async with SetBased(books) as limit:
            return await limit.run(seconds)

    return asyncio.run(run())


def cost_of_row_security(books: Books, *, batches: int) -> tuple[list[float], list[float]]:
    """Seconds of each batch with row-level security and without it, turn by turn, so that noise hits both."""

    async def run() -> tuple[list[float], list[float]]:
        async with SetBased(books) as bound, SetBased(books, row_security=False) as unbound:
            for _ in range(10):
                await bound.run_batch()
                await unbound.run_batch()
            taken: dict[SetBased, list[float]] = {bound: [], unbound: []}
            for number in range(batches):
                # Each goes first as often as the other.
                for limit in (bound, unbound) if number % 2 else (unbound, bound):
                    taken[limit].append(await limit.run_batch())
        return taken[bound], taken[unbound]

    return asyncio.run(run())


def _id(create: CreatePayments) -> UUID:
    [payment] = create.payments
    assert isinstance(payment, NewPayment)
    return payment.id


async def _render_created(command: CreatePayments, outcomes: Sequence[Payment | Rejected]) -> StoredResponse:
    [payment] = outcomes
    assert isinstance(payment, Payment)
    return StoredResponse(HTTPStatus.CREATED, payment_body(payment), location=f"/v1/payment-intents/{payment.id}")


async def _render_confirmed(command: ConfirmPayment, outcome: Payment | Rejected) -> StoredResponse:
    assert isinstance(outcome, Payment)
    return StoredResponse(HTTPStatus.OK, payment_body(outcome))


def _create(command: CreatePayments) -> Keyed[CreatePayments, Any]:
    return Keyed(create_payments, _render_created, command, _key(command, _id(command)))


def _confirm(command: ConfirmPayment) -> Keyed[ConfirmPayment, Any]:
    return Keyed(confirm_payments, _render_confirmed, command, _key(command, command.payment_id))


def _key(command: CreatePayments | ConfirmPayment, payment_id: UUID) -> Key:
    route, asked_for = f"POST {type(command).__name__}", fingerprint(str(payment_id))
    return Key(command.tenant_id, "bench", route, str(payment_id), asked_for, KEY_LIFETIME_SECONDS)


def _require_success(outcomes: Sequence[object]) -> None:
    refused = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    if refused:
        raise RuntimeError(f"{len(refused)} refused, the first: {refused[0].error}")
