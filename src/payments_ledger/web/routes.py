"""The one way to write a route: a function whose signature says what it reads of a request, and what it answers.

FastAPI describes the signature in the OpenAPI document. Reading a request is done here, by a plan that is made once for
each route: FastAPI's own solver took two fifths of a payment's time (ADR 18), and its stack of callables around a route
another tenth (ADR 34). This module can go when `scripts/bench.sh` shows FastAPI within a tenth of it.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAliasType, get_args, get_origin, get_type_hints

from fastapi import APIRouter, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from payments_ledger.errors import MissingHeader
from payments_ledger.web.exact_requests import BODY_BYTES_MAX, ExactRequest, read_body, single_header


@dataclass(frozen=True, slots=True)
class UpTo:
    """Beside a body's model in an annotation: how many bytes the body may have, in place of BODY_BYTES_MAX."""

    bytes_max: int


class Route(APIRoute):
    """A route that reads its requests by the plan of its function's signature, in the order of the parameters.

    A parameter is the request itself, a field of path, query or headers, the body (a pydantic model), or what a
    dependency makes of such parameters. Faults are collected and told together; what a dependency or a missing header
    raises ends the reading at once, so the first parameter is the caller.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._plan = _Plan(endpoint, self.param_convertors)
        self._query_names = frozenset(self._plan.query_names())
        self._body = TypeAdapter(self.response_model) if self.response_model else None

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        async def handle(request: Request) -> Response:
            return await self.respond(ExactRequest(request.scope, request.receive))

        return handle

    async def respond(self, request: ExactRequest) -> Response:
        """What the function returns for the request: a response as it is, anything else as JSON by its model.

        Raises RequestValidationError and whatever the function or a dependency raises.
        """
        values = await self._plan.read(request, {}, self._unknown_parameters(request))
        result = self.endpoint(**values)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, Response):
            return result
        if self._body is None:
            return Response(status_code=self.status_code or 200)
        return Response(self._body.dump_json(result), self.status_code or 200, media_type="application/json")

    def _unknown_parameters(self, request: Request) -> list[dict[str, Any]]:
        if not request.scope["query_string"]:
            return []
        unknown = dict.fromkeys(name for name in request.query_params if name not in self._query_names)
        return [{"type": "extra_forbidden", "loc": ("query", name), "msg": "is not known here"} for name in unknown]


class DirectRoutes:
    """ASGI middleware: serves the routes of some routers itself, and passes other requests on."""

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._routes_by_method: dict[str, list[Route]] = {}
        for router in routers:
            for route in router.routes:
                if isinstance(route, Route):
                    for method in route.methods or ():
                        self._routes_by_method.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._routes_by_method.get(scope["method"], ()):
                if found := route.path_regex.match(scope["path"]):
                    scope["route"] = route
                    scope["path_params"] = found.groupdict()
                    await _serve(route, scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _serve(route: Route, scope: Scope, receive: Receive, send: Send) -> None:
    request = ExactRequest(scope, receive)
    try:
        response = await route.respond(request)
    except Exception as error:
        handlers = scope["app"].exception_handlers
        handle = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
        if handle is None:
            raise
        response = await handle(request, error)
    await response(scope, receive, send)


# ----------------------------------------------------------------------------------------------------------------------
# Plans

type _Seen = dict[Callable[..., Any], Any]
"""What dependencies have returned for the request at hand: each is called once."""


class _Plan:
    """How the arguments of one function are read of a request; made once, used for every request."""

    def __init__(self, call: Callable[..., Any], path_names: Iterable[str]) -> None:
        self.call = call
        self._path_names = frozenset(path_names)
        function = call if inspect.isroutine(call) else call.__call__  # type: ignore[operator]
        hints = get_type_hints(function, include_extras=True)
        self._fields: list[_Field] = []
        self._dependencies: list[_Plan] = []
        self._readers = [
            (name, *self._reader(parameter, hints.get(name, Any)))
            for name, parameter in inspect.signature(function).parameters.items()
        ]

    def query_names(self) -> list[str]:
        """The query parameters that the function and its dependencies know."""
        own = [field.alias for field in self._fields if field.source is params.Query]
        return own + [name for dependency in self._dependencies for name in dependency.query_names()]

    async def read(self, request: ExactRequest, seen: _Seen, faults: list[dict[str, Any]]) -> dict[str, Any]:
        """The arguments; raises RequestValidationError with the faults of all of them, those given included."""
        values: dict[str, Any] = {}
        for name, read, waits in self._readers:
            try:
                values[name] = await read(request, seen) if waits else read(request, seen)
            except RequestValidationError as error:
                faults += error.errors()
        if faults:
            raise RequestValidationError(faults)
        return values

    def _reader(self, parameter: inspect.Parameter, hint: Any) -> tuple[Callable[..., Any], bool]:
        """What reads the parameter, and whether it has to be awaited."""
        while isinstance(hint, TypeAliasType):
            hint = hint.__value__
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if inspect.isclass(kind) and issubclass(kind, Request):
            return (lambda request, _: request), False
        for mark in marks:
            if isinstance(mark, params.Depends):
                assert mark.dependency is not None
                dependency = _Plan(mark.dependency, self._path_names)
                self._dependencies.append(dependency)
                return partial(_call, dependency), True
            if isinstance(mark, params.Query | params.Header | params.Path):
                return self._field(parameter, hint, type(mark), mark.alias), False
        if parameter.name in self._path_names:
            return self._field(parameter, hint, params.Path, None), False
        if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
            raise TypeError(f"{self.call}: nothing says where {parameter.name} is read from")
        bytes_max = next((mark.bytes_max for mark in marks if isinstance(mark, UpTo)), BODY_BYTES_MAX)
        return (lambda request, _: read_body(request, kind, bytes_max=bytes_max)), True

    def _field(
        self, parameter: inspect.Parameter, hint: Any, source: type[params.Param], alias: str | None
    ) -> Callable[..., Any]:
        name = parameter.name.replace("_", "-") if source is params.Header else parameter.name
        field = _Field(alias or name, source, TypeAdapter(hint), parameter.default, is_list=_is_list(hint))
        self._fields.append(field)
        return field.read


def _is_list(hint: Any) -> bool:
    return get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint) is list


async def _call(plan: _Plan, request: ExactRequest, seen: _Seen) -> Any:
    if plan.call in seen:
        return seen[plan.call]
    result = plan.call(**await plan.read(request, seen, []))
    if inspect.isawaitable(result):
        result = await result
    seen[plan.call] = result
    return result


@dataclass(frozen=True, slots=True)
class _Field:
    """One parameter of path, query or headers, required without a `default`; a list may be sent several times."""

    alias: str
    source: type[params.Param]
    adapter: TypeAdapter[Any]
    default: Any
    is_list: bool

    def read(self, request: ExactRequest, _: _Seen) -> Any:
        """Raises RequestValidationError, MissingHeader or RepeatedHeader."""
        found = self._find(request)
        if found is None:
            if self.default is not inspect.Parameter.empty:
                return self.default
            if self.source is params.Header:
                raise MissingHeader(f"{self.alias} is missing.")
            raise self._fault("missing", "is missing")
        try:
            return self.adapter.validate_python(found)
        except ValidationError as error:
            faults = [{**fault, "loc": self._location} for fault in error.errors(include_url=False)]
            raise RequestValidationError(faults) from None

    def _find(self, request: ExactRequest) -> str | list[str] | None:
        if self.source is params.Path:
            return str(request.path_params[self.alias])
        if self.source is params.Header:
            return single_header(request, self.alias)
        values = request.query_params.getlist(self.alias)
        if self.is_list:
            return values or None
        if len(values) > 1:
            raise self._fault("repeated", "was sent more than once")
        return values[0] if values else None

    def _fault(self, type_: str, message: str) -> RequestValidationError:
        return RequestValidationError([{"type": type_, "loc": self._location, "msg": message}])

    @property
    def _location(self) -> tuple[str, str]:
        return self.source.__name__.lower(), self.alias
