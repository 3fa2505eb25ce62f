"""`outbox` and `tail`: events that are not published yet, having them published, and following what is recorded."""

import asyncio
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from payments_ledger.cli.printable import printable
from payments_ledger.cli.terminal import (
    AnyTenant,
    Json,
    as_utc,
    errors,
    explained,
    fail,
    print_columns,
    print_json,
    read_settings,
    run,
    say,
    until_signalled,
)

if TYPE_CHECKING:
    from payments_ledger.delivery.queries import OutboxEvent

commands = typer.Typer(no_args_is_help=True, help="Events that are not published yet: look at them, publish them.")


class State(StrEnum):
    PENDING = "pending"
    FAILING = "failing"
    BURIED = "buried"


@commands.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only these; failing ones were tried.")] = None,
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: Json = False,
) -> None:
    """List the oldest events that are not published, with the reason of each that failed."""
    from payments_ledger.operations.outbox import list_waiting

    settings = read_settings()
    work = list_waiting(settings.database_url, state=state.value if state else None, tenant_id=tenant, limit=limit)
    events = run(settings, work)
    if json:
        print_json(*events)
    elif events:
        columns = ("id", "state", "attempts", "created_at", "tenant_id", "event_type", "aggregate_id", "last_error")
        print_columns([[getattr(event, column) for column in columns] for event in events], *columns)
    else:
        typer.echo("Nothing waits.")


@commands.command()
def retry(
    ids: Annotated[list[UUID] | None, typer.Argument(help="Ids of events.")] = None,
    aggregate: Annotated[UUID | None, typer.Option(help="All events of this payment.")] = None,
    all_buried: Annotated[bool, typer.Option("--all-buried", help="All events that were set aside.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was published: once more, same id.")] = False,
    json: Json = False,
) -> None:
    """Have events published now, with their attempts counted from zero. The audit log tells who did it."""
    from payments_ledger.operations.outbox import find_events, list_buried
    from payments_ledger.operations.outbox import retry as retry_events
    from payments_ledger.operations.users import operator

    if bool(ids or aggregate) == all_buried:
        raise typer.BadParameter("Say which: ids, --aggregate, or --all-buried.")
    settings = read_settings()
    url = settings.database_url

    async def work() -> "list[OutboxEvent]":
        found = await (list_buried(url) if all_buried else find_events(url, ids=ids or (), aggregate_id=aggregate))
        if unknown := sorted(set(ids or ()) - {event.id for event in found}):
            fail(f"There is no event {unknown[0]}.", "See payments-ledger outbox list.")
        return await retry_events(url, found, operator(), again=again)

    events = run(settings, work())
    if json:
        print_json(*events)
    else:
        typer.echo(f"{len(events)} will be published.")


def tail(
    tenant: AnyTenant = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; repeatable.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Begin at this time (UTC) instead of now.")] = None,
    json: Json = False,
) -> None:
    """Follow events as they are recorded, published or not, until Ctrl-C. Needs no broker."""
    from payments_ledger.operations.outbox import follow

    settings = read_settings()

    async def print_events() -> None:
        is_away = False
        found = follow(settings.database_url, since=as_utc(since), tenant_id=tenant, event_types=type_ or ())
        async for followed in found:
            if followed.event is None:
                if not is_away:
                    errors.print(printable(f"Waiting for PostgreSQL: {followed.away}"), markup=False, highlight=False)
                is_away = True
                continue
            is_away = False
            if json:
                print_json(followed.event)
            else:
                say(_line(followed.event))

    with explained(settings):
        asyncio.run(until_signalled(print_events()))


def _line(event: "OutboxEvent") -> str:
    payload, at = event.payload, event.created_at.isoformat(" ", "milliseconds")
    money = f"{payload.get('amount')} {payload.get('currency')}"
    correlation_id = event.headers.get("X-Correlation-Id")
    return f"{at}  {event.tenant_id}  {event.event_type}  {event.aggregate_id}  {money}  {correlation_id}"
