"""The one way to write a route: a function whose signature says what it reads of a request, and what it responds.

FastAPI describes the signature in the OpenAPI document. Requests are read here, by a plan that is made once for each
route, and served before FastAPI's own stack: its solver of dependencies took two fifths of a payment's time (ADR 18),
the callables that it puts around a route another tenth (ADR 34). Delete this module for FastAPI's own routes when
`scripts/bench.sh` shows them within a tenth of it.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeAliasType, get_args, get_origin, get_type_hints

from fastapi import APIRouter, HTTPException, Request, Response, params
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from payments_ledger.errors import Fault, Invalid, InvalidHeader, InvalidRequest, MissingHeader, together
from payments_ledger.validation.faults import FAULTS_MAX, NAME_LENGTH_MAX, UNKNOWN, describe
from payments_ledger.web.bodies import BODY_BYTES_MAX, Body, read_body
from payments_ledger.web.parameters import single_header

# The attribute of a dependency that reads query parameters of any name with this beginning.
QUERY_PREFIX = "query_prefix"


@dataclass(frozen=True, slots=True)
class UpTo:
    """Beside a body's model in an annotation: how many bytes the body may have, in place of BODY_BYTES_MAX."""

    bytes_max: int


class Route(APIRoute):
    """A route that reads its requests by the plan of its function's signature, in the order of the parameters.

    A parameter is the request itself, a field of path, query or headers, the body (a Body, which may be left out if it
    has a default), or what a dependency makes of such parameters. What is Invalid is collected, and all of it reported
    in one response; any other refusal ends the reading at once. So the caller comes first, then headers, path, query
    and body.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._plan = _Plan(endpoint, self.param_convertors)
        self._model = TypeAdapter(self.response_model) if self.response_model else None

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return self.respond

    async def respond(self, request: Request) -> Response:
        """What the function returns for the request: a response as it is, anything else as JSON by its model.

        Raises whatever the function or a dependency raises, and the refusals of what cannot be read.
        """
        result = await self._plan.run(request)
        if isinstance(result, Response):
            return result
        body = self._model.dump_json(result) if self._model else None
        return Response(body, self.status_code or 200, media_type="application/json" if body else None)


class DirectRoutes:
    """ASGI middleware: serves the routes of some routers itself, and passes requests for other paths on.

    A path that is named outright is not also an instance of a template ("/batch", "/{payment_id}").
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._by_path: dict[str, dict[str, Route]] = {}
        self._by_template: dict[str, dict[str, Route]] = {}
        for route in (route for router in routers for route in router.routes if isinstance(route, Route)):
            routes = self._by_template if route.param_convertors else self._by_path
            routes.setdefault(route.path, {}).update(dict.fromkeys(route.methods or (), route))
        self._templates = [(next(iter(routes.values())).path_regex, routes) for routes in self._by_template.values()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        routes = self._find(scope) if scope["type"] == "http" else None
        if routes is None:
            await self._app(scope, receive, send)
        else:
            await _serve(scope, receive, send, routes)

    def _find(self, scope: Scope) -> Mapping[str, Route] | None:
        """The routes of the path, by method."""
        path = scope["path"]
        scope["path_params"] = {}
        if path in self._by_path:
            return self._by_path[path]
        for pattern, routes in self._templates:
            if found := pattern.fullmatch(path):
                scope["path_params"] = found.groupdict()
                return routes
        return None


async def _serve(scope: Scope, receive: Receive, send: Send, routes: Mapping[str, Route]) -> None:
    """The response of the route for the method, or what the application's handlers make of its error."""
    route = routes.get(scope["method"])
    scope["route"] = route or next(iter(routes.values()))
    request = Request(scope, receive)
    try:
        if route is None:
            # All of them (RFC 9110, section 15.5.6).
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(routes))})
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

type _Values = dict[object, Any]
"""What was read of the request at hand, by the keys of the steps that read it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Reads one value, of the request or of the values that it `needs`, which are read before it."""

    read: Callable[[Request, _Values], Any]
    is_awaited: bool = False
    needs: frozenset[object] = frozenset()


class _Plan:
    """The steps that read a function's arguments, in their order; a dependency is one step, however often named."""

    def __init__(self, function: Callable[..., Any], path_names: Iterable[str]) -> None:
        self._path_names = frozenset(path_names)
        self._query_names: set[str] = set()
        self._query_prefixes: list[str] = []
        self._steps: dict[object, _Step] = {}
        self._last = self._call(function)

    async def run(self, request: Request) -> Any:
        """What the function returns; raises Invalid with the faults of all that is invalid, and what a step raises."""
        values: _Values = {Request: request}
        refusals: list[Invalid] = []
        for key, step in self._steps.items():
            if refusals and not step.needs <= values.keys():
                continue
            try:
                value = step.read(request, values)
                values[key] = await value if step.is_awaited else value
            except Invalid as error:
                refusals.append(error)
        if request.scope["query_string"]:
            refusals += self._unknown_parameters(request)
        if refusals:
            raise together(refusals)
        result = self._last.read(request, values)
        return await result if self._last.is_awaited else result

    def _unknown_parameters(self, request: Request) -> list[Invalid]:
        names = sorted(
            name
            for name in request.query_params.keys() - self._query_names
            if not name.startswith(tuple(self._query_prefixes))
        )[:FAULTS_MAX]
        faults = [Fault(UNKNOWN, parameter=name[:NAME_LENGTH_MAX]) for name in names]
        return [InvalidRequest(faults)] if faults else []

    def _call(self, function: Callable[..., Any]) -> _Step:
        """The step that calls the function. Those that read its arguments are in the plan then."""
        if prefix := getattr(function, QUERY_PREFIX, None):
            self._query_prefixes.append(prefix)
        called = function if inspect.isroutine(function) else function.__call__  # type: ignore[operator]
        hints = get_type_hints(called, include_extras=True)
        keys = {
            name: self._add(parameter, hints.get(name, Any))
            for name, parameter in inspect.signature(called).parameters.items()
        }

        def read(_: Request, values: _Values) -> Any:
            return function(**{name: values[key] for name, key in keys.items()})

        return _Step(read, inspect.iscoroutinefunction(called), frozenset(keys.values()))

    def _add(self, parameter: inspect.Parameter, hint: Any) -> object:
        """The key under which the parameter's value will be found; raises TypeError if nothing says what it is."""
        while isinstance(hint, TypeAliasType):
            hint = hint.__value__
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if kind is Request:
            return Request
        for mark in marks:
            if isinstance(mark, params.Depends):
                assert mark.dependency is not None
                if mark.dependency not in self._steps:
                    self._steps[mark.dependency] = self._call(mark.dependency)
                return mark.dependency
            if isinstance(mark, params.Query | params.Header | params.Path):
                return self._add_field(parameter, hint, type(mark), mark.alias or parameter.name)
        if parameter.name in self._path_names:
            return self._add_field(parameter, hint, params.Path, parameter.name)
        if not (inspect.isclass(kind) and issubclass(kind, Body)):
            raise TypeError(f"Nothing says where {parameter.name} is read from.")
        bytes_max = next((mark.bytes_max for mark in marks if isinstance(mark, UpTo)), BODY_BYTES_MAX)
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        self._steps[Body] = _Step(
            lambda request, _: read_body(request, kind, bytes_max=bytes_max, default=default), is_awaited=True
        )
        return Body

    def _add_field(self, parameter: inspect.Parameter, hint: Any, source: type[params.Param], name: str) -> object:
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        is_repeatable = source is params.Query and get_origin(kind) is tuple
        field = _Field(name, source, TypeAdapter(hint), parameter.default, is_repeatable)
        if source is params.Query:
            self._query_names.add(name)
        self._steps[field] = _Step(field.read)
        return field


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """One parameter of path, query or headers, required without a `default`; a query's tuple may be repeated."""

    name: str
    source: type[params.Param]
    adapter: TypeAdapter[Any]
    default: Any
    is_repeatable: bool = False

    def read(self, request: Request, _: _Values) -> Any:
        """Raises MissingHeader, RepeatedHeader or InvalidHeader; InvalidRequest for what stands in path or query."""
        found = self._find(request)
        if found is None:
            if self.default is not inspect.Parameter.empty:
                return self.default
            if self.source is params.Header:
                raise MissingHeader(self.name)
            raise self._invalid("is required")
        try:
            return self.adapter.validate_python(found)
        except ValidationError as error:
            detail = describe(error.errors(include_url=False, include_input=False)[0])
        if self.source is params.Header:
            raise InvalidHeader(self.name, f"{self.name} {detail}.")
        raise self._invalid(detail)

    def _find(self, request: Request) -> str | list[str] | None:
        if self.source is params.Path:
            return str(request.path_params[self.name])
        if self.source is params.Header:
            return single_header(request, self.name)
        values = request.query_params.getlist(self.name)
        if self.is_repeatable:
            return values or None
        if len(values) > 1:
            raise self._invalid("was sent more than once")
        return values[0] if values else None

    def _invalid(self, detail: str) -> InvalidRequest:
        return InvalidRequest([Fault(detail, parameter=self.name)])
