"""`outbox` and `tail`: list unpublished events, have them published, and follow events as they are recorded."""

import asyncio
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from payments_ledger.cli.printable import printable
from payments_ledger.cli.session import on_database, operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import (
    AnyTenant,
    Json,
    as_utc,
    errors,
    explained,
    fail,
    print_columns,
    print_json,
    say,
    until_signalled,
)

if TYPE_CHECKING:
    from payments_ledger.delivery.queries import OutboxEvent
    from payments_ledger.postgres.database import Database

commands = typer.Typer(no_args_is_help=True, help="Events that are not published yet: list them, publish them.")


class State(StrEnum):
    """What can be wrong with an unpublished event; a failing one was tried, a buried one is not tried any more."""

    PENDING = "pending"
    FAILING = "failing"
    BURIED = "buried"


@commands.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only events in this state.")] = None,
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: Json = False,
) -> None:
    """List the oldest unpublished events, each failed one with its reason."""
    from payments_ledger.operations.outbox import list_unpublished

    wanted = state.value if state else None
    events = operate(
        read_settings(), lambda database: list_unpublished(database, state=wanted, tenant_id=tenant, limit=limit)
    )
    if json:
        print_json(*events)
    elif events:
        columns = ("id", "state", "attempts", "created_at", "tenant_id", "event_type", "aggregate_id", "last_error")
        print_columns([[getattr(event, column) for column in columns] for event in events], *columns)
    else:
        typer.echo("There are no unpublished events.")


@commands.command()
def retry(
    ids: Annotated[list[UUID] | None, typer.Argument(help="Ids of events.")] = None,
    aggregate: Annotated[UUID | None, typer.Option(help="All events of this payment.")] = None,
    all_buried: Annotated[bool, typer.Option("--all-buried", help="All events that were buried.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also published events: once more, same id.")] = False,
    json: Json = False,
) -> None:
    """Have events published now, with their attempts counted from zero. The audit log records who did it."""
    from payments_ledger.operations.outbox import find_events, list_buried
    from payments_ledger.operations.outbox import retry as retry_events

    if bool(ids or aggregate) == all_buried:
        raise typer.BadParameter("Name events by id, --aggregate or --all-buried.")

    async def work(database: "Database") -> "list[OutboxEvent]":
        if all_buried:
            found = await list_buried(database)
        else:
            found = await find_events(database, ids=ids or (), aggregate_id=aggregate)
        if unknown := sorted(set(ids or ()) - {event.id for event in found}):
            fail(f"There is no event {unknown[0]}.", "See payments-ledger outbox list.")
        return await retry_events(database, operator(), found, again=again)

    events = operate(read_settings(), work)
    if json:
        print_json(*events)
    else:
        typer.echo(f"{len(events)} will be published.")


def tail(
    tenant: AnyTenant = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; repeatable.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Start at this time (UTC) instead of now.")] = None,
    json: Json = False,
) -> None:
    """Follow events as they are recorded, published or not, until Ctrl-C. Needs no broker."""
    from payments_ledger.operations.outbox import follow

    settings = read_settings()

    async def print_events(database: "Database") -> None:
        waiting = False
        found = follow(database, since=as_utc(since), tenant_id=tenant, event_types=type_ or ())
        async for followed in found:
            if followed.event is None:
                if not waiting:
                    errors.print(printable(f"Waiting for PostgreSQL: {followed.fault}"), markup=False, highlight=False)
                waiting = True
                continue
            waiting = False
            if json:
                print_json(followed.event)
            else:
                say(_line(followed.event))

    with explained(settings):
        asyncio.run(until_signalled(on_database(settings, print_events)))


def _line(event: "OutboxEvent") -> str:
    payload, at = event.payload, event.created_at.isoformat(" ", "milliseconds")
    money = f"{payload.get('amount')} {payload.get('currency')}"
    correlation_id = event.headers.get("X-Correlation-Id")
    return f"{at}  {event.tenant_id}  {event.event_type}  {event.aggregate_id}  {money}  {correlation_id}"
