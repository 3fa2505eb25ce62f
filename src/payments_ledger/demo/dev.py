"""`payments-ledger dev`: database, API and worker in one process, and a payment that passes through all of it."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from payments_ledger.api import create_app
from payments_ledger.demo.embedded_postgres import EmbeddedPostgres
from payments_ledger.demo.seed import DEMO_USERS, seed
from payments_ledger.demo.walk import walk_one_payment
from payments_ledger.process.settings import MEMORY_URL, Settings
from payments_ledger.schema.migrate import migrate
from payments_ledger.telemetry.logs import configure_logging
from payments_ledger.web.server import server_beside
from payments_ledger.worker import Worker

HOST = "127.0.0.1"


async def run(listener: socket.socket, *, once: bool, data: Path) -> int:
    """Serves until cancelled, or until the walk is done; returns the exit status, 0 if the walk went well.

    Everything lives in the folder `data`, which is made if need be and can be deleted when nothing runs.
    """
    console = Console()
    postgres = EmbeddedPostgres(data / "postgres")
    try:
        with console.status("Starting PostgreSQL …"):
            url = await asyncio.to_thread(postgres.start)
            await asyncio.to_thread(migrate, url)
            await seed(url)
        settings = Settings(
            # Never production, whatever the environment says: the demo users' passwords are public.
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
                _print_next_steps(console, base_url)
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


def _print_next_steps(console: Console, base_url: str) -> None:
    user = next(user for user in DEMO_USERS if user.role == "ops")
    serving = f"\nServing on [bold]{base_url}[/], until Ctrl-C. Documentation: {base_url}/docs"
    console.print(serving, soft_wrap=True)
    console.print(f"Log in as [bold]{user.email}[/], password [bold]{user.password}[/], tenant {user.tenant_id}.")
    # The program that runs, as it can be typed from here.
    program = os.path.relpath(sys.argv[0])
    console.print(f"In a second terminal: [bold]{program} status[/]", soft_wrap=True)


def _kept_secret(file: Path) -> str:
    """The secret of this folder's tokens, so that they outlive a restart."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(48))
    return file.read_text()
