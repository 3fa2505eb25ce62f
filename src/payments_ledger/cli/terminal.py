"""What every command shares: how it prints, and how it reports what is wrong and what to do."""

import asyncio
import dataclasses
import json
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from payments_ledger.cli.printable import printable

if TYPE_CHECKING:
    from payments_ledger.errors import LedgerError
    from payments_ledger.process.settings import Settings

# Exit statuses; 2 is for a command line that cannot be understood.
REFUSED = 1
CANNOT = 3
# As shells have it for what SIGINT ended: 128 + 2.
INTERRUPTED = 130

errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a line.")]
Tenant = Annotated[str, typer.Option(help="The tenant's id; * is the home of global administrators.")]
AnyTenant = Annotated[str | None, typer.Option(help="Only of this tenant.")]


def run[T](settings: "Settings", work: Coroutine[Any, Any, T]) -> T:
    """Returns what the work returns; if it raises, ends the command with what is wrong and what to do."""
    with explained(settings):
        return asyncio.run(work)


@contextmanager
def explained(settings: "Settings") -> Iterator[None]:
    """Ends the command with what is wrong and what to do, for everything that can be expected to go wrong."""
    import psycopg

    from payments_ledger.errors import DatabaseUnavailable, LedgerError, SchemaMissing, Unavailable
    from payments_ledger.messaging.messages import BrokerUnavailable
    from payments_ledger.redis.pipeline import RedisUnavailable

    try:
        yield
    except DatabaseUnavailable:
        from payments_ledger.operations.status import why_unreachable

        reason = asyncio.run(why_unreachable(settings.database_url)) or "it did not respond in time"
        fail(f"Cannot reach PostgreSQL: {reason}", "Check DATABASE_URL, and whether PostgreSQL is running.", CANNOT)
    except (SchemaMissing, psycopg.errors.UndefinedColumn):
        fail("The schema is missing or out of date.", "Run payments-ledger migrate.", CANNOT)
    except psycopg.errors.InsufficientPrivilege as error:
        remedy = "Run payments-ledger migrate. The user in DATABASE_URL must own the database."
        fail(f"PostgreSQL refuses: {error.diag.message_primary}.", remedy, CANNOT)
    except Unavailable as error:
        fail(error.detail, "Try again; payments-ledger status shows what is unreachable.", CANNOT)
    except BrokerUnavailable as error:
        fail(f"Cannot reach RabbitMQ: {error}", "Check RABBITMQ_URL, and whether RabbitMQ is running.", CANNOT)
    except RedisUnavailable:
        fail("Cannot reach Redis.", "Check REDIS_URL, and whether Redis is running. Nothing was changed.", CANNOT)
    except LedgerError as error:
        fail(error.detail, _remedy(error), REFUSED)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def until_signalled[T](work: Coroutine[Any, Any, T]) -> T | None:
    """Runs the work until it ends, or until SIGINT or SIGTERM asks it to finish: then None. A second one kills it."""
    from payments_ledger.process.draining import drain_when_asked

    task = asyncio.create_task(work)
    undo = drain_when_asked(task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        undo()


def say(text: str) -> None:
    """Prints a line that may hold what came from outside."""
    typer.echo(printable(text))


def fail(what: str, remedy: str, status: int = REFUSED) -> NoReturn:
    """`what` may have several lines."""
    what = "\n".join(map(printable, what.split("\n")))
    errors.print(what, style="bold red", markup=False, highlight=False, soft_wrap=True)
    errors.print(printable(remedy), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def print_json(*values: Any) -> None:
    """One object a line."""
    for value in values:
        say(json.dumps(value, default=_plain, ensure_ascii=False))


def print_columns(rows: Iterable[Sequence[object]], *headings: str) -> None:
    """Aligned, and each row on one line whatever the width of the terminal, so that it can be searched."""
    lines = [headings, *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """On standard error, and only if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        yield progress


def as_utc(time: datetime | None) -> datetime | None:
    """A time without a zone is UTC."""
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


def age(seconds: float) -> str:
    """In the unit that says most: 3.2 s, 12.0 min, 5.0 h, 2.1 days."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _remedy(error: "LedgerError") -> str:
    from payments_ledger import errors as known

    if isinstance(error, known.UnknownTenant | known.TenantExists):
        return "See payments-ledger tenants list."
    if isinstance(error, known.UserNotFound | known.UserExists):
        return "See payments-ledger users list --tenant …"
    return "Nothing was changed."


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    assert isinstance(value, UUID), type(value)
    return str(value)


def _shown(cell: object) -> str:
    text = "" if cell is None else cell.isoformat(" ", "seconds") if isinstance(cell, datetime) else str(cell)
    return printable(text)
