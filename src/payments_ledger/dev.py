"""`payments-ledger dev`: database, API and worker in one process, and a payment walked through all of it."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from payments_ledger.api import create_app
from payments_ledger.migrate import migrate
from payments_ledger.platform.embedded_postgres import EmbeddedPostgres
from payments_ledger.platform.http_server import server_beside
from payments_ledger.platform.logging import configure_logging
from payments_ledger.platform.settings import MEMORY_URL, Settings
from payments_ledger.seed import seed
from payments_ledger.walk import walk_one_payment
from payments_ledger.worker import Worker

HOST = "127.0.0.1"


async def run(*, port: int, once: bool, data: Path) -> int:
    """Serves until cancelled, or until the walk is done; returns the exit status, 0 if the walk went well.

    Everything lives in the folder `data`, which is made if need be and can be deleted when nothing runs.
    """
    console = Console()
    listener = _listen(port)
    if listener is None:
        console.print(f"[bold red]Port {port} is taken.[/] Choose another with --port.")
        return 1
    postgres = EmbeddedPostgres(data / "postgres")
    try:
        with console.status("Starting PostgreSQL …"):
            url = await asyncio.to_thread(postgres.start)
            await asyncio.to_thread(migrate, url)
            await seed(url)
        settings = Settings(
            # This is no production, whatever the environment says: its demo users' passwords are public.
            app_env="development",
            internal_port=None,
            database_url=url,
            redis_url=MEMORY_URL,
            rabbitmq_url=MEMORY_URL,
            jwt_secret=SecretStr(_kept_secret(data / "jwt_secret")),
            log_level="WARNING",
            log_format="console",
        )
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        async with _running(settings, listener):
            base_url = f"http://{HOST}:{listener.getsockname()[1]}"
            went_well = await walk_one_payment(base_url, console)
            if not once:
                console.print(f"\nServing on [bold]{base_url}[/] (documentation: {base_url}/docs). Ctrl-C stops it.")
                await asyncio.Event().wait()
    finally:
        listener.close()
        await asyncio.to_thread(postgres.stop)
    return 0 if went_well else 1


@asynccontextmanager
async def _running(settings: Settings, listener: socket.socket) -> AsyncIterator[None]:
    """The API and the worker, as long as the block lasts."""
    server = server_beside(create_app(settings))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[listener]))
        working = tasks.create_task(Worker(settings).run())
        try:
            yield
        finally:
            server.should_exit = True
            await serving
            working.cancel()


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        return None
    return listener


def _kept_secret(file: Path) -> str:
    """The secret of this folder's tokens, so that they outlive a restart."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(48))
    return file.read_text()
