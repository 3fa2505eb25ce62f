"""`status`: an overview of the engine, and exit status 1 when something is down."""

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from payments_ledger.cli.printable import printable
from payments_ledger.cli.session import operate
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import REFUSED, Json, age, errors, print_json

if TYPE_CHECKING:
    from payments_ledger.operations.status import Overview

# What is older is stuck: the relay publishes an event within moments, and a settlement takes about a second.
OUTBOX_SECONDS_HIGH = 10
AUTHORIZED_SECONDS_HIGH = 60
WIDTH_ELSEWHERE = 160


def status(json: Json = False) -> None:
    """Show services, outbox, queues and the last settlements. Exit status 1 if something is down."""
    from payments_ledger.operations.status import take_overview

    settings = read_settings()
    with errors.status("Checking …") if errors.is_terminal else nullcontext():
        overview = operate(settings, lambda database: take_overview(database, settings))
    if json:
        print_json(overview.to_object())
    else:
        console = Console()
        # A file or a pipe has room for whole ids.
        _print(console if console.is_terminal else Console(width=WIDTH_ELSEWHERE), overview)
    raise typer.Exit(REFUSED if overview.faults else 0)


def _print(console: Console, overview: "Overview") -> None:
    from payments_ledger.money import format_amount

    services = _table("services", "", "version")
    for service in overview.services:
        state = "[bold red]down[/]" if service.fault else "[green]up[/]"
        services.add_row(service.name, state, escape(service.version or ""))
    console.print(services)

    waiting = _table_of_waiting(overview)
    if waiting.row_count:
        console.print(waiting)

    if overview.queues is not None:
        queues = _table("queues", "ready", "delayed", "dead letters", "consumers")
        for queue in overview.queues:
            consumers = str(queue.consumers) if queue.consumers else "[bold red]0[/]"
            queues.add_row(queue.name, str(queue.ready), str(queue.delayed), _alarming(queue.dead), consumers)
        console.print(queues)

    if overview.settlements:
        now = datetime.now(UTC)
        settlements = _table("last settlements", "amount", "tenant", "payment")
        for settlement in overview.settlements:
            amount = f"{format_amount(settlement.amount, settlement.currency)} {settlement.currency}"
            ago = age((now - settlement.settled_at).total_seconds())
            settlements.add_row(f"{ago} ago", amount, escape(settlement.tenant_id), str(settlement.payment_id))
        console.print(settlements)

    for fault in overview.faults:
        console.print(printable(fault), style="bold red", markup=False, highlight=False, soft_wrap=True)


def _table_of_waiting(overview: "Overview") -> Table:
    table = _table("waiting", "count", "oldest")
    if outbox := overview.outbox:
        table.add_row("outbox", str(outbox.pending), _age(outbox.oldest_seconds, OUTBOX_SECONDS_HIGH))
        table.add_row("  of these failing", _alarming(outbox.failing), "")
        table.add_row("  buried", _alarming(outbox.buried), "")
    for counted in overview.payments or ():
        if counted.status == "AUTHORIZED":
            oldest = _age(counted.oldest_seconds, AUTHORIZED_SECONDS_HIGH)
            table.add_row("payments AUTHORIZED", str(counted.payments), oldest)
    return table


def _table(title: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", highlight=False)
    table.add_column(title, min_width=20, no_wrap=True)
    for other in others:
        table.add_column(other, overflow="fold")
    return table


def _alarming(count: int) -> str:
    return f"[yellow]{count}[/]" if count else "0"


def _age(seconds: float, high: float) -> str:
    return f"[yellow]{age(seconds)}[/]" if seconds > high else age(seconds)
