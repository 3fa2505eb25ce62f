"""`transactions`: a tenant's ledger transactions: list, show, void, reverse."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import Json, Tenant, as_utc, print_columns, print_json, say

if TYPE_CHECKING:
    from payments_ledger.ledger.transactions.transaction import Transaction

commands = typer.Typer(no_args_is_help=True, help="Ledger transactions of a tenant: list, show, void, reverse.")

Id = Annotated[UUID, typer.Argument(help="The transaction's id.")]


class State(StrEnum):
    """As the filters of the API have them."""

    POSTED = "posted"
    PENDING = "pending"
    VOIDED = "voided"
    EXPIRED = "expired"


@commands.command("list")
def list_(
    tenant: Tenant,
    account: Annotated[str | None, typer.Option(help="Only those that move this account.")] = None,
    reference: Annotated[str | None, typer.Option(help="The one that has it.")] = None,
    status: Annotated[State | None, typer.Option(help="Only those in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: Json = False,
) -> None:
    """List transactions, newest first."""
    from payments_ledger.ledger.transactions.queries import TransactionFilter
    from payments_ledger.ledger.transactions.transaction import Status
    from payments_ledger.operations.ledger import list_transactions

    wanted = TransactionFilter(account=account, reference=reference, status=Status(status.upper()) if status else None)
    _print(operate(read_settings(), lambda database: list_transactions(database, tenant, wanted, limit)), json)


@commands.command()
def show(id: Id, tenant: Tenant, json: Json = False) -> None:  # noqa: A002
    """Show a transaction and its postings."""
    from payments_ledger.operations.ledger import find_transaction

    _print([operate(read_settings(), lambda database: find_transaction(database, tenant, id))], json)


@commands.command()
def void(id: Id, tenant: Tenant, json: Json = False) -> None:  # noqa: A002
    """Release what a pending transaction holds."""
    from payments_ledger.operations.ledger import void_transaction

    _print([operate(read_settings(), lambda database: void_transaction(database, operator(), tenant, id))], json)


@commands.command()
def reverse(
    id: Id,  # noqa: A002
    tenant: Tenant,
    effective_at: Annotated[
        datetime | None, typer.Option(help="UTC without a zone. That of the reversed one by default.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Recorded with the reversal.")] = None,
    json: Json = False,
) -> None:
    """Record a new transaction that mirrors a posted one."""
    from payments_ledger.operations.ledger import reverse_transaction

    reversal = operate(
        read_settings(),
        lambda database: reverse_transaction(
            database, operator(), tenant, id, effective_at=as_utc(effective_at) or "original", reason=reason
        ),
    )
    _print([reversal], json)


def _print(transactions: "list[Transaction]", json: bool) -> None:
    from payments_ledger.ledger.transactions.schemas import show_transaction

    if json:
        print_json(*(show_transaction(each).model_dump(mode="json") for each in transactions))
        return
    if not transactions:
        say("There are no such transactions.")
        return
    rows = [
        (
            each.id,
            each.status,
            each.kind,
            each.reference,
            each.recorded_at,
            posting.debit_account,
            posting.credit_account,
            posting.money,
        )
        for each in transactions
        for posting in each.postings
    ]
    print_columns(rows, "id", "status", "kind", "reference", "recorded", "debit", "credit", "amount")
