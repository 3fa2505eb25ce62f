"""Each row of the lifecycle has its twin everywhere; its twin in PostgreSQL is compared in schema/test_schema.py."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest
import yaml  # type: ignore[import-untyped]

from payments_ledger.payments import invariants, use_cases
from payments_ledger.payments.lifecycle import MOVES, Move, Status
from payments_ledger.payments.payment import Failure, Payment
from payments_ledger.postgres.database import Database
from tests.integration.books import ORIGIN, confirm_a_payment, create_a_payment, settle_a_payment

ASYNCAPI = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"

# What commands say besides the payment.
MORE = {"amount": None, "reason": None, "failure": Failure("card_declined"), "description": None, "metadata": None}

move_by_move = pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move.before}-{move.after}")


@move_by_move
def test_the_event_of_each_move_is_in_the_asyncapi_document(move: Move) -> None:
    channels = yaml.safe_load(ASYNCAPI.read_text())["channels"]
    assert move.event in {channel["address"] for channel in channels.values()}


@move_by_move
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("changes_are_audited", lambda move: f"'{move.event}', '{move.action}')"),
        ("moves_are_told_without_a_gap", lambda move: f"'{move.event}', '{move.action}')"),
        ("events_match_their_payment", lambda move: f"('{move.event}', '{move.after}')"),
        (
            "audit_rows_have_their_payment",
            lambda move: f"('{move.action}', {f"'{move.before}'" if move.before else 'NULL'}, '{move.after}')",
        ),
    ],
)
def test_the_invariants_know_the_event_and_the_audit_action_of_each_move(
    move: Move, name: str, told: Callable[[Move], str]
) -> None:
    [invariant] = [invariant for invariant in invariants.INVARIANTS if invariant.name == name]
    assert told(move) in invariant.rows


@pytest.mark.anyio
async def test_each_move_is_made_by_a_use_case(database: Database, tenant: str) -> None:
    made: set[tuple[Status | None, Status]] = {(None, (await create_a_payment(database, tenant)).status)}
    for use_case, command in use_cases_of_one_payment():
        for payment in await payments_in_every_status(database, tenant):
            async with database.transaction([tenant]) as conn:
                more = {name: MORE[name] for name in MORE.keys() & get_type_hints(command).keys()}
                await use_case(conn, [command(tenant_id=tenant, payment_id=payment.id, origin=ORIGIN, **more)])
            after = await status_of(database, tenant, payment.id)
            if after is not payment.status:
                made.add((payment.status, after))
    assert made == {(move.before, move.after) for move in MOVES}


def use_cases_of_one_payment() -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    """Every use case whose command names a payment, with the type of its command."""
    for _, function in inspect.getmembers(use_cases, inspect.iscoroutinefunction):
        if function.__module__ != use_cases.__name__ or function.__name__.startswith("_"):
            continue
        [command] = get_args(get_type_hints(function)["commands"])
        if "payment_id" in get_type_hints(command):
            yield function, command


async def payments_in_every_status(database: Database, tenant: str) -> list[Payment]:
    """One of each status that a use case leads to, but for CANCELLED, from which there is no way on."""
    return [
        await create_a_payment(database, tenant),
        await confirm_a_payment(database, await create_a_payment(database, tenant)),
        await settle_a_payment(database, tenant),
    ]


async def status_of(database: Database, tenant: str, payment_id: UUID) -> Status:
    async with database.transaction([tenant]) as conn:
        cursor = await conn.execute(
            "SELECT status FROM payment_intents WHERE tenant_id = %s AND id = %s", [tenant, payment_id]
        )
        row = await cursor.fetchone()
    assert row is not None
    return Status(row[0])
