"""`dead-letters`: messages that could not be handled; look at them, put them back, drop them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.terminal import (
    CANNOT,
    Json,
    fail,
    print_columns,
    print_json,
    progress_bar,
    read_settings,
    run,
    say,
)

if TYPE_CHECKING:
    from payments_ledger.operations.dead_letters import DeadLetter

commands = typer.Typer(no_args_is_help=True, help=__doc__.partition(": ")[2].capitalize())

# As in operations/dead_letters.py, which is only imported when it is needed.
LIST_LENGTH_MAX = 1000

Ids = Annotated[list[str] | None, typer.Argument(help="Ids from the list, or how they begin.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@commands.command("list")
def list_(
    json: Json = False,
    limit: Annotated[int, typer.Option(min=1, max=LIST_LENGTH_MAX, help="Of each queue.")] = 100,
) -> None:
    """List the oldest dead letters of each queue, with the reason of each."""
    from payments_ledger.operations.dead_letters import list_dead_letters

    settings = read_settings()
    letters = run(settings, list_dead_letters(settings, limit=limit))
    if json:
        print_json(*letters)
        return
    if letters:
        rows = [(letter.short_id, letter.since, letter.queue, letter.routing_key, letter.reason) for letter in letters]
        print_columns(rows, "id", "since", "queue", "routing_key", "reason")
    else:
        typer.echo("There are no dead letters.")


@commands.command()
def show(id: Annotated[str, typer.Argument(help="Id, or how it begins.")], json: Json = False) -> None:  # noqa: A002
    """Show one dead letter with its headers and body."""
    from payments_ledger.operations.dead_letters import having_ids, list_dead_letters

    settings = read_settings()
    is_wanted = having_ids([id])
    letters = [letter for letter in run(settings, list_dead_letters(settings)) if is_wanted(letter)]
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
    """Put dead letters back into the queue they came from. The audit log tells who did it.

    Can be repeated: handling a message twice does no harm.
    """
    from payments_ledger.operations.dead_letters import replay_dead_letters

    settings, wanted = read_settings(), _chosen(ids, all_)
    with progress_bar() as progress:
        bar = progress.add_task("Replaying")
        work = replay_dead_letters(
            settings, wanted, lambda done, total: progress.update(bar, completed=done, total=total)
        )
        letters = run(settings, work)
    _tell("Replayed", letters, json)


@commands.command()
def drop(ids: Ids = None, all_: All = False, json: Json = False) -> None:
    """Remove dead letters for good. The audit log tells who did it."""
    from payments_ledger.operations.dead_letters import drop_dead_letters, in_memory

    settings, wanted = read_settings(), _chosen(ids, all_)
    if in_memory(settings):
        what = "With RABBITMQ_URL=memory:// dead letters are events of the outbox, which are never deleted."
        fail(what, "Remove the cause, then: payments-ledger dead-letters replay.", CANNOT)
    with progress_bar() as progress:
        bar = progress.add_task("Dropping")
        work = drop_dead_letters(
            settings, wanted, lambda done, total: progress.update(bar, completed=done, total=total)
        )
        letters = run(settings, work)
    _tell("Dropped", letters, json)


def _chosen(ids: list[str] | None, all_: bool) -> "Callable[[DeadLetter], bool]":
    from payments_ledger.operations.dead_letters import having_ids

    if bool(ids) == all_:
        raise typer.BadParameter("Say which: ids from payments-ledger dead-letters list, or --all.")
    return having_ids(ids) if ids else lambda _: True


def _tell(done: str, letters: "list[DeadLetter]", json: bool) -> None:
    if json:
        print_json(*letters)
    else:
        typer.echo(f"{done}: {len(letters)}.")
