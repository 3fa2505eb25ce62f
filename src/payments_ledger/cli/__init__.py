"""The command line: every command on one screen. Each imports what it needs when it runs, so that help is quick."""

from typing import Annotated

import typer

from payments_ledger.cli import (
    accounts,
    books,
    database,
    dead_letters,
    outbox,
    payments,
    processes,
    reference,
    status,
    tenants,
    transactions,
    users,
    verify,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A payments engine with a double-entry ledger.",
    epilog="Exit status: 0 success; 1 refused, or an invariant does not hold; 2 invalid command line; "
    "3 a service is unreachable, not set up or not permitted; 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"payments-ledger {version('payments-ledger')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


serve = app.command(rich_help_panel="Run")
serve(processes.api)
serve(processes.worker)
serve(processes.dev)

inspect = app.command(rich_help_panel="Inspect")
inspect(status.status)
inspect(outbox.tail)
inspect(verify.verify)
inspect(books.statement)
inspect(books.report)
inspect(books.export)

app.add_typer(payments.commands, name="payments", rich_help_panel="Inspect")

app.add_typer(accounts.commands, name="accounts", rich_help_panel="Ledger")
app.add_typer(transactions.commands, name="transactions", rich_help_panel="Ledger")

app.add_typer(tenants.commands, name="tenants", rich_help_panel="Set up")
app.add_typer(users.commands, name="users", rich_help_panel="Set up")
prepare = app.command(rich_help_panel="Set up")
prepare(database.migrate)
prepare(database.seed)

app.add_typer(outbox.commands, name="outbox", rich_help_panel="Repair")
app.add_typer(dead_letters.commands, name="dead-letters", rich_help_panel="Repair")

describe = app.command(rich_help_panel="Schemas")
describe(reference.openapi)
describe(reference.asyncapi)
