"""`api`, `worker` and `dev`: the commands that run until they are asked to stop."""

import asyncio
import errno
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from payments_ledger.cli.embedded import DATA_FOLDER, DATA_VARIABLE
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import CANNOT, INTERRUPTED, fail, until_signalled

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")]


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
) -> None:
    """Serve the HTTP API. It starts without PostgreSQL, and is ready once that is reachable.

    On SIGTERM /readyz reports draining for SHUTDOWN_GRACE_SECONDS, then in-flight requests are finished. A second
    SIGTERM ends it immediately.
    """
    import uvicorn

    from payments_ledger.telemetry.metrics import shared_by_processes
    from payments_ledger.web.server import EngineHttp, Supervisor

    settings = read_settings(serves=True)
    config = uvicorn.Config(
        "payments_ledger.api:create_app_from_environment",
        factory=True,
        http=EngineHttp,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_config=None,
        server_header=False,
        # X-Forwarded-For is read by the application, and only from TRUSTED_PROXIES.
        proxy_headers=False,
        timeout_graceful_shutdown=15,
        # How long a process may take to start: on a busy machine longer than the default 5 s, after which it is killed.
        timeout_worker_healthcheck=60,
    )
    sockets = [_bind(host, port, "--port")]
    if settings.internal_port:
        sockets.append(_bind(host, settings.internal_port, "INTERNAL_PORT"))
    if workers == 1:
        # uvicorn repeats the signal once it has served to the end: that is an orderly end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        uvicorn.Server(config).run(sockets=sockets)
    else:
        with shared_by_processes():
            Supervisor(config, sockets=sockets).run()


def worker(
    host: Annotated[str, typer.Option(help="Address for health and metrics; their port is WORKER_PORT.")] = "127.0.0.1",
) -> None:
    """Publish events, settle authorized payments, purge expired idempotency keys, audit the books."""
    import uvloop

    from payments_ledger.process import failpoints
    from payments_ledger.process.garbage_collection import collect_seldom
    from payments_ledger.telemetry.tracing import export_spans, stop_exporting_spans
    from payments_ledger.worker import Worker

    settings = read_settings(serves=True)
    failpoints.arm(failpoints.read_failpoints(settings.failpoints))
    export_spans("payments-ledger-worker")
    listener = _bind(host, settings.worker_port, "WORKER_PORT") if settings.worker_port else None
    worker = Worker(settings)
    collect_seldom()
    uvloop.run(until_signalled(worker.serve(listener)))
    stop_exporting_spans()


def _bind(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens on the port; ends the command if that is not possible."""
    from payments_ledger.web.server import bind

    try:
        return bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what = f"Port {port} is taken."
        else:
            what = f"Cannot listen on port {port} of {host}: {error.strerror or error}."
        fail(what, f"Choose another port with {setting}, or stop what uses it.", CANNOT)


def dev(
    port: Port = 8000,
    once: Annotated[bool, typer.Option("--once", help="Exit after the demonstration.")] = False,
    data: Annotated[
        Path, typer.Option(help="Folder of the embedded PostgreSQL. Delete it to start over.", envvar=DATA_VARIABLE)
    ] = Path(DATA_FOLDER),
) -> None:
    """Run everything on an embedded PostgreSQL, take one payment to SETTLED, then serve until Ctrl-C."""
    from payments_ledger.demo.embedded_postgres import EmbeddedPostgresError

    try:
        # httpx and the embedded PostgreSQL are an optional extra that production goes without.
        from payments_ledger.demo import dev as development
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed.", "pip install payments-ledger[embedded]", CANNOT)
    listener = _bind(development.HOST, port, "--port")
    try:
        status = asyncio.run(until_signalled(development.run(listener, once=once, data=data)))
    except EmbeddedPostgresError as error:
        fail(str(error), f"Its log is in {data / 'postgres'}.", CANNOT)
    if status is None:
        # Ctrl-C is how serving ends; a demonstration that was interrupted has shown nothing.
        status = INTERRUPTED if once else 0
    raise typer.Exit(status)
