"""`dead-letters`: messages that could not be handled: list, show, replay, drop."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import (
    CANNOT,
    Json,
    fail,
    print_columns,
    print_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from payments_ledger.operations.dead_letters import DeadMessage

commands = typer.Typer(no_args_is_help=True, help="Messages that could not be handled: list, show, replay, drop.")

# As in operations/dead_letters.py, which is only imported when it is needed.
LIST_LENGTH_MAX = 1000

Ids = Annotated[list[str] | None, typer.Argument(help="Ids from the list, or their beginnings.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@commands.command("list")
def list_(
    json: Json = False,
    limit: Annotated[int, typer.Option(min=1, max=LIST_LENGTH_MAX, help="Of each queue.")] = 100,
) -> None:
    """List the oldest dead letters of each queue, each with its reason."""
    from payments_ledger.operations.dead_letters import list_dead_letters

    settings = read_settings()
    letters = operate(settings, lambda database: list_dead_letters(database, settings, limit=limit))
    if json:
        print_json(*letters)
        return
    if letters:
        rows = [(letter.short_id, letter.since, letter.queue, letter.routing_key, letter.reason) for letter in letters]
        print_columns(rows, "id", "since", "queue", "routing_key", "reason")
    else:
        typer.echo("There are no dead letters.")


@commands.command()
def show(id: Annotated[str, typer.Argument(help="Id, or its beginning.")], json: Json = False) -> None:  # noqa: A002
    """Show one dead letter with its headers and body."""
    from payments_ledger.operations.dead_letters import having_ids, list_dead_letters

    settings = read_settings()
    is_wanted = having_ids([id])
    found = operate(settings, lambda database: list_dead_letters(database, settings))
    letters = [letter for letter in found if is_wanted(letter)]
    if not letters:
        fail(f"There is no dead letter {id}.", "See payments-ledger dead-letters list.")
    for letter in letters:
        if json:
            print_json(letter)
            continue
        say(f"{letter.id} of {letter.queue}: {letter.reason}")
        for name, value in sorted(letter.headers.items()):
            say(f"{name}: {value}")
        say("")
        for line in letter.body.split("\n"):
            say(line)


@commands.command()
def replay(ids: Ids = None, all_: All = False, json: Json = False) -> None:
    """Put dead letters back into the queue they came from. The audit log records who did it.

    Can be repeated: handling a message twice does no harm.
    """
    from payments_ledger.operations.dead_letters import replay_dead_letters

    settings, wanted = read_settings(), _chosen(ids, all_)
    with progress_bar() as progress:
        bar = progress.add_task("Replaying")

        def show_progress(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        letters = operate(
            settings, lambda database: replay_dead_letters(database, operator(), settings, wanted, show_progress)
        )
    _print("Replayed", letters, json)


@commands.command()
def drop(ids: Ids = None, all_: All = False, json: Json = False) -> None:
    """Remove dead letters for good. The audit log records who did it."""
    from payments_ledger.operations.dead_letters import drop_dead_letters, in_memory

    settings, wanted = read_settings(), _chosen(ids, all_)
    if in_memory(settings):
        what = "With RABBITMQ_URL=memory:// dead letters are events of the outbox, which are never deleted."
        fail(what, "Remove the cause, then: payments-ledger dead-letters replay.", CANNOT)
    with progress_bar() as progress:
        bar = progress.add_task("Dropping")

        def show_progress(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        letters = operate(
            settings, lambda database: drop_dead_letters(database, operator(), settings, wanted, show_progress)
        )
    _print("Dropped", letters, json)


def _chosen(ids: list[str] | None, all_: bool) -> "Callable[[DeadMessage], bool]":
    from payments_ledger.operations.dead_letters import having_ids

    if bool(ids) == all_:
        raise typer.BadParameter("Name dead letters by id (payments-ledger dead-letters list), or give --all.")
    return having_ids(ids) if ids else lambda _: True


def _print(done: str, letters: "list[DeadMessage]", json: bool) -> None:
    if json:
        print_json(*letters)
    else:
        typer.echo(f"{done}: {len(letters)}.")
