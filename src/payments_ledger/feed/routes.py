"""The HTTP routes of the feed: events, oldest first, from wherever a reader stands; waiting for more if it wants."""

import time
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.errors import CursorExpired, EventNotFound, Fault, InvalidRequest, UnknownEvent
from payments_ledger.event_types import EVENT_TYPES
from payments_ledger.feed import queries
from payments_ledger.feed.heads import Heads
from payments_ledger.feed.patterns import EVERYTHING, Patterns
from payments_ledger.feed.schemas import EVENT_EXAMPLE, FeedEvent, show_event
from payments_ledger.postgres.database import Connection
from payments_ledger.process.draining import is_draining
from payments_ledger.web.deadline import extend_deadline
from payments_ledger.web.paging import PAGE_LIMIT, Limit, json_array
from payments_ledger.web.parameters import CanonicalUUID
from payments_ledger.web.problems import documented
from payments_ledger.web.routes import Route

PATH = "/v1/events"
# Proxies give up on a silent connection after half a minute or more.
WAIT_SECONDS_MAX = 20
# More are a slip, and each costs a comparison for every event.
TYPES_MAX = 50

Reader = Annotated[Caller, Depends(caller_with(Permission.EVENTS_READ))]


def router_of(heads: Heads) -> APIRouter:
    """The routes; `heads` says when there is more to read."""
    router = APIRouter(prefix=PATH, tags=["events"], route_class=Route)

    @router.get(
        "",
        summary="Read events",
        response_model=list[FeedEvent],
        responses=documented(*TENANT_PROBLEMS, HTTPStatus.GONE),
    )
    async def list_events(
        caller: Reader,
        request: Request,
        resources: Shared,
        after: Annotated[
            CanonicalUUID | None, Query(description="The id of the last event that was read; else from the oldest on")
        ] = None,
        types: Annotated[
            tuple[str, ...], Query(description="Only these types; `payment.*` is all that begin so. Repeatable")
        ] = (),
        aggregate_id: Annotated[
            CanonicalUUID | None, Query(description="Only of this payment, transaction or account")
        ] = None,
        limit: Limit = PAGE_LIMIT,
        wait: Annotated[
            int, Query(ge=0, le=WAIT_SECONDS_MAX, description="So many seconds, if there is nothing to read yet")
        ] = 0,
    ) -> Response:
        """The tenant's events in an order that never changes, oldest first. Nothing slips in before what was read.

        While there is more to read, `Link: <…>; rel="next"` (RFC 8288) leads to it, also from a page without events.
        """
        wanted = _patterns(types)
        extend_deadline(request.scope, wait)
        until = time.monotonic() + wait
        position, found = await _read_after(resources, caller, after, wanted, aggregate_id, limit)
        while not found.events and found.is_end and (left := until - time.monotonic()) > 0 and not is_draining():
            await heads.wait_beyond(caller.tenant_id, position, left)
            position, found = await _read(resources, caller, position, wanted, aggregate_id, limit)
        response = await json_array(map(show_event, found.events[:limit]))
        if next_after := _next_after(found, limit):
            response.headers["Link"] = _link(request, next_after)
        return response

    @router.get(
        "/{event_id}",
        summary="Show an event",
        response_model=FeedEvent,
        responses=documented(*TENANT_PROBLEMS),
    )
    async def get_event(
        caller: Reader,
        event_id: Annotated[CanonicalUUID, Path(description="The event", examples=[EVENT_EXAMPLE["id"]])],
        resources: Shared,
    ) -> Response:
        """The event; it never changes, and is kept as long as the feed is."""
        async with resources.database.transaction([caller.tenant_id]) as conn:
            event = await queries.find_event(conn, caller.tenant_id, event_id)
        if event is None:
            raise EventNotFound
        return Response(show_event(event).model_dump_json(), media_type="application/json")

    return router


def _patterns(types: tuple[str, ...]) -> Patterns:
    if not types:
        return EVERYTHING
    if len(types) > TYPES_MAX:
        raise InvalidRequest([Fault(f"at most {TYPES_MAX} types can be named", parameter="types")])
    try:
        return Patterns.read(types, EVENT_TYPES)
    except ValueError as error:
        raise InvalidRequest([Fault(str(error), parameter="types")]) from None


async def _read_after(
    resources: Resources,
    caller: Caller,
    after: UUID | None,
    wanted: Patterns,
    aggregate_id: UUID | None,
    limit: int,
) -> tuple[int, queries.Found]:
    """As _read, after an event. Raises UnknownEvent or CursorExpired."""
    if after is None:
        return await _read(resources, caller, 0, wanted, aggregate_id, limit)
    async with resources.database.transaction([caller.tenant_id]) as conn:
        position = await _position_of(conn, caller.tenant_id, after)
        if position is None:
            # It is written and has no position yet, so nothing follows it so far.
            heads = await queries.last_positions(conn, [caller.tenant_id])
            return heads.get(caller.tenant_id, 0), queries.NOTHING
    return await _read(resources, caller, position, wanted, aggregate_id, limit)


async def _read(
    resources: Resources, caller: Caller, position: int, wanted: Patterns, aggregate_id: UUID | None, limit: int
) -> tuple[int, queries.Found]:
    """How far was looked, and what was found after the position: one event more than the limit, if there are."""
    tenant_id = caller.tenant_id
    async with resources.database.transaction([tenant_id]) as conn:
        if aggregate_id is None:
            found = await queries.read_events(conn, tenant_id, after=position, wanted=wanted, limit=limit + 1)
            return found.last_position or position, found
        # Before the events are read: what comes in between is looked at again.
        heads = await queries.last_positions(conn, [tenant_id])
        found = await queries.read_events_of(
            conn, tenant_id, aggregate_id, after=position, wanted=wanted, limit=limit + 1
        )
        return heads.get(tenant_id, position), found


async def _position_of(conn: Connection, tenant_id: str, event_id: UUID) -> int | None:
    """None of an event that has none yet. Raises UnknownEvent, or CursorExpired for what retention has removed."""
    position = await queries.find_position(conn, tenant_id, event_id)
    if position is not None:
        return position
    if await queries.is_written(conn, tenant_id, event_id):
        return None
    first = await queries.first_event(conn, tenant_id)
    if first is not None:
        oldest, oldest_id = first
        # Ids begin with their time (UUIDv7), and the first event ever has the position 1.
        if oldest > 1 and event_id < oldest_id:
            raise CursorExpired(oldest)
    elif last := (await queries.last_positions(conn, [tenant_id])).get(tenant_id):
        raise CursorExpired(last + 1)
    raise UnknownEvent


def _next_after(found: queries.Found, limit: int) -> UUID | None:
    """From where a reader goes on, if it is known that there is more."""
    if len(found.events) > limit:
        return found.events[limit - 1].id
    return None if found.is_end else found.last_id


def _link(request: Request, after: UUID) -> str:
    sent = parse_qsl(request.url.query, keep_blank_values=True)
    parameters = [(name, value) for name, value in sent if name not in ("after", "wait")]
    return f'<{request.url.path}?{urlencode([*parameters, ("after", str(after))])}>; rel="next"'
