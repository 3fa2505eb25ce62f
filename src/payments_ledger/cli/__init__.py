"""The command line: every command on one screen. Each imports what it needs when it runs, so that help is quick."""

from typing import Annotated

import typer

from payments_ledger.cli import database as books
from payments_ledger.cli import dead_letters, outbox, processes, status, tenants, users
from payments_ledger.cli import reference as documents

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A payments engine with a double-entry ledger.",
    epilog="Exit status: 0 done; 1 refused, or something does not hold; 2 the command line is not understood; "
    "3 something it needs is away, not set up or not permitted; 130 interrupted.",
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
) -> None: ...


serve = app.command(rich_help_panel="Run it")
serve(processes.api)
serve(processes.worker)
serve(processes.dev)

look = app.command(rich_help_panel="Look at it")
look(status.status)
look(outbox.tail)
look(books.verify)

app.add_typer(tenants.commands, name="tenants", rich_help_panel="Set it up")
app.add_typer(users.commands, name="users", rich_help_panel="Set it up")
prepare = app.command(rich_help_panel="Set it up")
prepare(books.migrate)
prepare(books.seed)

app.add_typer(outbox.commands, name="outbox", rich_help_panel="Put it right")
app.add_typer(dead_letters.commands, name="dead-letters", rich_help_panel="Put it right")

describe = app.command(rich_help_panel="Describe it")
describe(documents.openapi)
describe(documents.asyncapi)
