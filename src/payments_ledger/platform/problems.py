"""Errors as clients see them: problem details (RFC 9457), made in one place."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from payments_ledger import errors
from payments_ledger.errors import LedgerError
from payments_ledger.platform.tracing import current_trace

MEDIA_TYPE = "application/problem+json"
REFERENCE = "#/components/schemas/{model}"
# A problem repeats names and paths that clients made up, so it repeats no more of them than a person can read.
NAME_LENGTH_MAX = 64
FIELDS_MAX = 20
INSTANCE_LENGTH_MAX = 256

STATUS_BY_ERROR: dict[type[LedgerError], HTTPStatus] = {
    errors.Unreadable: HTTPStatus.BAD_REQUEST,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Limited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


# What any route with a body can answer before it looks into it.
BODY_PROBLEMS = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)


class FieldProblem(BaseModel):
    """Where a fault lies: a JSON pointer into the body ("#/amount"), or the name of a parameter or header."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """A problem detail object (RFC 9457); `code` is what programs should look at."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    correlation_id: str
    errors: list[FieldProblem] = []


def status_of(error: LedgerError) -> HTTPStatus:
    return next(STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)


def problem_body(error: LedgerError, *, instance: str, correlation_id: str) -> bytes:
    """The problem document of an error that met the request for the path `instance`."""
    fields = []
    if isinstance(error, errors.Invalid):
        pointer = error.field if isinstance(error, errors.InvalidParameter) else f"#/{error.field}"
        fields = [{"pointer": pointer, "detail": error.detail}]
    return _render(status_of(error), error.code, error.detail, instance, correlation_id, fields)


type OnRefusal = Callable[[Request, LedgerError], None]
"""Is told of every request that is answered 401 or 403."""


def install_problem_handlers(app: FastAPI, on_refusal: OnRefusal) -> None:
    """Answers every error of the application, the framework's own included, with a problem document."""
    app.openapi = partial(_with_problem_schema, app.openapi)  # type: ignore[method-assign]

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, errors.Unauthenticated | errors.Forbidden):
            on_refusal(request, error)
        return await _on_ledger_error(request, error)

    app.add_exception_handler(LedgerError, answer)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in the OpenAPI document: the problems that it can answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def _with_problem_schema(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document with the schema that `documented` refers to: FastAPI adds those of JSON bodies only."""
    document = describe()
    schema = Problem.model_json_schema(ref_template=REFERENCE)
    document["components"]["schemas"] |= schema.pop("$defs") | {Problem.__name__: schema}
    return document


async def _on_ledger_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable | errors.Limited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    body = problem_body(error, instance=request.url.path, correlation_id=current_trace().correlation_id)
    return Response(body, status_of(error), headers, MEDIA_TYPE)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """Values are not repeated: they may be secret, endless, or impossible to encode."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    unreadable = next((fault for fault in found if fault["type"] == "json_invalid"), None)
    if unreadable:
        detail = f"The body is not JSON: {unreadable.get('ctx', {}).get('error', 'syntax error')}."
        return _response(request, HTTPStatus.BAD_REQUEST, "malformed_json", detail)
    missing = next((fault for fault in found if fault["loc"][0] == "header" and fault["type"] == "missing"), None)
    if missing:
        return _response(request, HTTPStatus.BAD_REQUEST, "missing_header", f"{missing['loc'][1]} is missing.")
    fields = [{"pointer": _pointer(fault["loc"]), "detail": fault["msg"]} for fault in found[:FIELDS_MAX]]
    detail = "; ".join(f"{field['pointer']}: {field['detail']}" for field in fields[:5])
    return _response(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, fields)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = error.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods_of(request.app, request.url.path))}
    return _response(request, status, status.name.lower(), str(error.detail), headers=headers)


def _methods_of(app: FastAPI, path: str) -> list[str]:
    """All methods of a path (RFC 9110, section 15.5.6): the framework names those of its first route only."""
    paths = app.openapi()["paths"]
    # A path that is named outright is not also an instance of a template ("/batch", "/{payment_id}").
    operations = paths.get(path) or {
        method: operation
        for template, described in paths.items()
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
        for method, operation in described.items()
    }
    return sorted(method.upper() for method in operations)


def internal_error_body(instance: str) -> bytes:
    """The answer to a fault of ours, which names nothing of what is inside."""
    return _render(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something went wrong here. The correlation id finds it in the logs.",
        instance,
        current_trace().correlation_id,
    )


def _response(
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    fields: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = _render(status, code, detail, request.url.path, current_trace().correlation_id, fields)
    return Response(body, status, headers, MEDIA_TYPE)


def _pointer(location: Sequence[str | int]) -> str:
    source, *path = location
    names = [str(name)[:NAME_LENGTH_MAX] for name in path]
    return "#/" + "/".join(names) if source == "body" else (names[0] if names else str(source))


def _render(
    status: HTTPStatus,
    code: str,
    detail: str,
    instance: str,
    correlation_id: str,
    fields: Sequence[Mapping[str, str]] = (),
) -> bytes:
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "instance": instance[:INSTANCE_LENGTH_MAX],
        "code": code,
        "correlation_id": correlation_id,
    }
    if fields:
        problem["errors"] = fields
    # ASCII only: a path or a field's name may hold what UTF-8 cannot encode.
    return json.dumps(problem).encode()
