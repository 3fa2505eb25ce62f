"""Requests as our routes read them: bodies within limits and to the digit, checked before anything is made of them."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from decimal import Decimal
from functools import cached_property
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from payments_ledger.errors import (
    BodyCutOff,
    BodyTooLarge,
    BodyTooSlow,
    Fault,
    InvalidRequest,
    MalformedJson,
    RepeatedHeader,
    UnsupportedMediaType,
)
from payments_ledger.validation.exact_json import parse_exact_json
from payments_ledger.validation.faults import FAULTS_MAX, NAME_LENGTH_MAX, UNKNOWN, invalid_body

# Many times the largest body of a single command. A field's own limit is beside the field.
BODY_BYTES_MAX = 64 * 1024
# From the head of the request to the end of its body, over the slowest line that is still worth serving.
BODY_SECONDS_MAX = 10.0

_JSON_TYPES = re.compile(r"application/(json|[a-z0-9.+-]+\+json)[ \t]*(;.*)?", re.ASCII | re.IGNORECASE)


class Body(BaseModel):
    """An object in the body of a request: members that it does not have are refused, not passed over."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _be_an_object(cls, value: Any) -> Any:
        # FastAPI would look for the members among the attributes of a number.
        if isinstance(value, Decimal):
            raise ValueError("must be an object")
        return value


class ExactRequest(Request):
    """A request whose body is bounded in size and time, and whose JSON is read by `parse_exact_json`."""

    body_bytes_max = BODY_BYTES_MAX

    async def json(self) -> Any:
        return parse_exact_json(await self.body())

    async def body(self) -> bytes:
        """Raises BodyTooLarge, BodyTooSlow or BodyCutOff."""
        if not hasattr(self, "_body"):
            # A length that is no number never gets here; the server refuses it.
            if int(self.headers.get("content-length", 0)) > self.body_bytes_max:
                raise BodyTooLarge
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    self._body = await self._read()
            except TimeoutError:
                raise BodyTooSlow from None
            except ClientDisconnect:
                raise BodyCutOff from None
        return self._body

    async def _read(self) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > self.body_bytes_max:
                raise BodyTooLarge
        return bytes(body)


class StrictRoute(APIRoute):
    """A route that takes the query parameters that it declares and refuses others, which it would leave unread."""

    async def admit(self, request: Request) -> None:
        """Raises what refuses the request whatever else is in it."""

    async def begin(self, request: Request) -> None:
        """Raises what `admit` raises, or InvalidRequest that names the unknown parameters."""
        await self.admit(request)
        # Looked at first: most requests have none.
        if request.scope["query_string"]:
            unknown = request.query_params.keys() - self._parameters
            if unknown:
                named = [name[:NAME_LENGTH_MAX] for name in sorted(unknown)[:FAULTS_MAX]]
                raise InvalidRequest([Fault(UNKNOWN, parameter=name) for name in named])

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(_query_parameters(self.dependant))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            await self.begin(request)
            return await handle(request)

        return handle_strictly


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)


class ExactJSONRoute(StrictRoute):
    """A route whose body is read as an ExactRequest, after `admit` has let the request in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = APIRoute.get_route_handler(self)

        async def handle_exactly(request: Request) -> Response:
            await self.begin(request)
            exact = ExactRequest(request.scope, request.receive)
            if self.body_field is not None:
                _require_json(request)
                # Read here, because FastAPI would make one vague 400 of whatever reading it raises.
                await exact.body()
            return await handle(exact)

        return handle_exactly


class DirectRoute(StrictRoute):
    """A route whose endpoint takes the request alone and reads it itself. DirectRoutes serves it.

    What it reads is declared by the route's `dependencies`: FastAPI describes them in the OpenAPI document, and nobody
    calls them. To have FastAPI solve them took two fifths of a payment's time (ADR 18).
    """

    endpoint: Callable[[ExactRequest], Awaitable[Response]]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            return await self.serve(ExactRequest(request.scope, request.receive))

        return handle

    async def serve(self, request: ExactRequest) -> Response:
        await self.begin(request)
        return await self.endpoint(request)


class DirectRoutes:
    """ASGI middleware: serves the direct routes of a router itself, and passes other requests on.

    On their way through FastAPI they would pass eight callables that do nothing for them (ADR 34).
    """

    def __init__(self, app: ASGIApp, router: APIRouter) -> None:
        self._app = app
        self._routes = [route for route in router.routes if isinstance(route, DirectRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._routes:
                if scope["method"] in (route.methods or ()) and (found := route.path_regex.fullmatch(scope["path"])):
                    scope["route"] = route
                    scope["path_params"] = found.groupdict()
                    await self._serve(route, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _serve(self, route: DirectRoute, scope: Scope, receive: Receive, send: Send) -> None:
        request = ExactRequest(scope, receive)
        try:
            response = await route.serve(request)
        except Exception as error:
            handlers = scope["app"].exception_handlers
            handle = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            if handle is None:
                raise
            response = await handle(request, error)
        await response(scope, receive, send)


async def read_body[M: BaseModel](request: ExactRequest, model: type[M], *, bytes_max: int = BODY_BYTES_MAX) -> M:
    """The JSON body as the model has it; raises what `read_json` raises, or InvalidRequest."""
    return check_body(await read_json(request, bytes_max=bytes_max), model)


async def read_json(request: ExactRequest, *, bytes_max: int = BODY_BYTES_MAX) -> Any:
    """The value of the JSON body; raises what ExactRequest raises, UnsupportedMediaType, MalformedJson, Invalid."""
    _require_json(request)
    request.body_bytes_max = bytes_max
    if not await request.body():
        raise InvalidRequest([Fault("is required")])
    try:
        return await request.json()
    except json.JSONDecodeError as error:
        raise MalformedJson(f"The body is not JSON: {error.msg}.") from None


def check_body[M: BaseModel](value: Any, model: type[M]) -> M:
    """The value as the model has it; raises InvalidRequest."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error) from None


def single_header(request: Request, name: str) -> str | None:
    """A header's value, None without one; raises RepeatedHeader."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise RepeatedHeader(name, f"{name} was sent {len(values)} times.")
    return values[0] if values else None


def _require_json(request: Request) -> None:
    if not _JSON_TYPES.fullmatch(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
