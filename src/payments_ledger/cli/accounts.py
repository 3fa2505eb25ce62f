"""`accounts`: a tenant's chart of accounts: list, show balances, add, close, reopen."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import Json, Tenant, print_columns, print_json, say

if TYPE_CHECKING:
    from payments_ledger.ledger.accounts import Account

commands = typer.Typer(no_args_is_help=True, help="Accounts of a tenant: list, show balances, add, close, reopen.")

Code = Annotated[str, typer.Argument(help="The account's code, such as WALLET.C001.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000)]


class Type(StrEnum):
    """As the ledger has them; imported later, with the rest."""

    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    EXPENSE = "expense"


class State(StrEnum):
    """Nothing can be posted to a closed account."""

    OPEN = "open"
    CLOSED = "closed"


@commands.command("list")
def list_(
    tenant: Tenant,
    prefix: Annotated[str | None, typer.Option(help="Only this code and those below it.")] = None,
    type_: Annotated[Type | None, typer.Option("--type", help="Only accounts of this type.")] = None,
    state: Annotated[State | None, typer.Option(help="Only open or only closed ones.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List accounts in order of their codes."""
    from payments_ledger.ledger.accounts import AccountState, AccountType
    from payments_ledger.ledger.chart.queries import AccountFilter
    from payments_ledger.operations.ledger import list_accounts

    wanted = AccountFilter(prefix, AccountType(type_) if type_ else None, AccountState(state) if state else None)
    _print(operate(read_settings(), lambda database: list_accounts(database, tenant, wanted, limit)), json)


@commands.command()
def show(code: Code, tenant: Tenant, json: Json = False) -> None:
    """Show the balances of an account, one for each currency."""
    from payments_ledger.ledger.chart.schemas import show_running_balance
    from payments_ledger.operations.ledger import show_balances

    balances = operate(read_settings(), lambda database: show_balances(database, tenant, code))
    shown = [show_running_balance(balance).model_dump() for balance in balances]
    if json:
        print_json(*shown)
    elif shown:
        print_columns([list(each.values()) for each in shown], *shown[0])
    else:
        typer.echo("Nothing was posted to it.")


@commands.command()
def add(
    code: Code,
    tenant: Tenant,
    type_: Annotated[Type, typer.Option("--type", help="Its normal side is that of the type.")],
    name: Annotated[str | None, typer.Option(help="The code by default.")] = None,
    json: Json = False,
) -> None:
    """Add an account. Limits, owner and metadata are set over HTTP."""
    from payments_ledger.errors import Invalid
    from payments_ledger.ledger.chart.schemas import AccountRequest
    from payments_ledger.operations.ledger import create_account

    try:
        account = AccountRequest.read({"code": code, "name": name or code, "type": type_.value}).account
    except Invalid as error:
        raise typer.BadParameter(error.detail) from None
    _print([operate(read_settings(), lambda database: create_account(database, operator(), tenant, account))], json)


@commands.command()
def close(code: Code, tenant: Tenant, json: Json = False) -> None:
    """Close an account whose balance is zero: nothing can be posted to it from then on."""
    from payments_ledger.operations.ledger import close_account

    _print([operate(read_settings(), lambda database: close_account(database, operator(), tenant, code))], json)


@commands.command()
def reopen(code: Code, tenant: Tenant, json: Json = False) -> None:
    """Reopen a closed account."""
    from payments_ledger.operations.ledger import reopen_account

    _print([operate(read_settings(), lambda database: reopen_account(database, operator(), tenant, code))], json)


def _print(accounts: "list[Account]", json: bool) -> None:
    from payments_ledger.ledger.chart.schemas import show_account

    if json:
        print_json(*(show_account(account).model_dump(mode="json") for account in accounts))
    elif accounts:
        columns = ("code", "name", "type", "normal_side", "state", "owner_ref")
        print_columns([[getattr(account, column) for column in columns] for account in accounts], *columns)
    else:
        say("There are no such accounts.")
