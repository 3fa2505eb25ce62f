"""The command line: every way to start the engine."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from rich.console import Console
from sqlalchemy.exc import OperationalError

from payments_ledger import migrate as migrations
from payments_ledger import seed as demo
from payments_ledger.errors import LedgerError
from payments_ledger.platform.logging import configure_logging
from payments_ledger.platform.settings import Settings
from payments_ledger.worker import Worker

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A payments engine with a double-entry ledger.",
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")]


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
) -> None:
    """Serve the HTTP API. It starts without PostgreSQL and serves as soon as that is there."""
    _settings()
    uvicorn.run(
        "payments_ledger.api:create_app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=15,
    )


@app.command()
def worker() -> None:
    """Publish the outbox, settle what was authorized, clear what ran out."""
    asyncio.run(_until_signalled(Worker(_settings()).run()))


@app.command()
def migrate() -> None:
    """Bring the database schema up to date. Can be repeated, and started twice at once."""
    settings = _settings()
    try:
        migrations.migrate(settings.database_url)
    except OperationalError as error:
        _fail(f"The database cannot be reached or refuses: {error.orig}", "Look at DATABASE_URL, and whether it runs.")
    typer.echo("The schema is up to date.")


@app.command()
def seed() -> None:
    """Add the demo tenants and users. What exists already is left as it is."""
    try:
        asyncio.run(demo.seed(_settings().database_url))
    except LedgerError as error:
        _fail(error.detail, "Look at DATABASE_URL, and whether it runs.")
    for user in demo.DEMO_USERS:
        typer.echo(f"{user.email} / {user.password}, tenant {user.tenant_id}, role {user.role}")


@app.command()
def dev(
    port: Port = 8000,
    once: Annotated[bool, typer.Option("--once", help="Exit after the demonstration.")] = False,
    data: Annotated[
        Path, typer.Option(help="Folder of the embedded PostgreSQL. Delete it to begin anew.", envvar="LEDGER_DATA")
    ] = Path(".ledger"),
) -> None:
    """Run everything on an embedded PostgreSQL, walk one payment to SETTLED, then serve until Ctrl-C."""
    # Imported here: httpx and the embedded PostgreSQL are an optional extra that production goes without.
    from payments_ledger import dev as development

    raise typer.Exit(asyncio.run(_until_signalled(development.run(port=port, once=once, data=data))) or 0)


def _settings() -> Settings:
    settings = Settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    return settings


async def _until_signalled[T](work: Coroutine[Any, Any, T]) -> T | None:
    """Runs the work until it ends or SIGINT or SIGTERM asks it to finish; None in that case."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _fail(what: str, remedy: str) -> None:
    errors.print(f"[bold red]{what}[/]\n{remedy}", highlight=False)
    raise typer.Exit(1)
