"""Errors as clients see them: problem details (RFC 9457), made in one place."""

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from payments_ledger import errors
from payments_ledger.errors import Fault, LedgerError
from payments_ledger.telemetry.tracing import current_trace
from payments_ledger.validation.faults import FAULTS_MAX, NAME_LENGTH_MAX

MEDIA_TYPE = "application/problem+json"
REFERENCE = "#/components/schemas/{model}"
# A problem repeats the path that a client made up, so it repeats no more of it than a person can read.
INSTANCE_LENGTH_MAX = 256
# What RFC 3986 lets stand in a fragment as it is.
_FRAGMENT_SAFE = "!$&'()*+,;=:@?"

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
    errors.Gone: HTTPStatus.GONE,
    errors.Limited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


# The responses of any route with a body before it looks into it.
BODY_PROBLEMS = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)


class BodyProblem(BaseModel):
    """A fault of the body, at a JSON pointer in its form for URIs (RFC 6901): "#/amount", "#" for the whole body."""

    pointer: str
    detail: str


class ParameterProblem(BaseModel):
    """A fault of the query parameter, path parameter or header of this name."""

    parameter: str
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
    errors: list[BodyProblem | ParameterProblem] = []


def status_of(error: LedgerError) -> HTTPStatus:
    """The status of the nearest ancestor that STATUS_BY_ERROR lists."""
    return next(STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)


def problem_body(error: LedgerError, *, instance: str, correlation_id: str, index: int | None = None) -> bytes:
    """The problem document of an error that met the request for the path `instance`.

    `index` is the place of what was refused among many, where they are refused together.
    """
    faults = [_shown(fault) for fault in error.faults[:FAULTS_MAX]]
    return _render(status_of(error), error.code, error.detail, instance, correlation_id, faults, index)


type OnRefusal = Callable[[Request, LedgerError], None]
"""Called for every request that is refused with 401 or 403."""


def install_problem_handlers(app: FastAPI, on_refusal: OnRefusal | None = None) -> None:
    """Makes a problem document of every error of the application, the framework's own included."""

    async def respond(request: Request, error: Exception) -> Response:
        if on_refusal and isinstance(error, errors.Unauthenticated | errors.Forbidden):
            on_refusal(request, error)
        return await _on_ledger_error(request, error)

    app.add_exception_handler(LedgerError, respond)
    app.add_exception_handler(HTTPException, _on_http_exception)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in the OpenAPI document: the problems that it can end in."""
    content = {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


async def _on_ledger_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable | errors.Limited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    body = problem_body(error, instance=request.url.path, correlation_id=current_trace().correlation_id)
    return Response(body, status_of(error), headers, MEDIA_TYPE)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return _response(request, status, status.name.lower(), str(error.detail), headers=error.headers)


def internal_error_body(instance: str) -> bytes:
    """The response to an unforeseen error, which names nothing of what is inside."""
    return _render(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something went wrong here. The correlation id finds it in the logs.",
        instance,
        current_trace().correlation_id,
    )


def method_not_allowed_body(instance: str, correlation_id: str) -> bytes:
    """The problem document of a 405, with the path `instance`."""
    status = HTTPStatus.METHOD_NOT_ALLOWED
    return _render(status, status.name.lower(), status.phrase, instance, correlation_id)


def _response(
    request: Request,
    status: HTTPStatus,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = _render(status, code, detail, request.url.path, current_trace().correlation_id)
    return Response(body, status, headers, MEDIA_TYPE)


def _shown(fault: Fault) -> dict[str, str]:
    if fault.parameter is not None:
        return {"parameter": fault.parameter[:NAME_LENGTH_MAX], "detail": fault.detail}
    return {"pointer": pointer_to(fault.path), "detail": fault.detail}


def pointer_to(path: Sequence[str | int]) -> str:
    """A JSON pointer as a URI fragment (RFC 6901, section 6): () is "#", ("a", 0) is "#/a/0"."""
    return "#" + "".join(f"/{_escaped(str(name))}" for name in path)


def _escaped(name: str) -> str:
    # Lone surrogates, which a name may hold, cannot be encoded.
    return quote(name.replace("~", "~0").replace("/", "~1"), safe=_FRAGMENT_SAFE, errors="replace")


def _render(
    status: HTTPStatus,
    code: str,
    detail: str,
    instance: str,
    correlation_id: str,
    faults: Sequence[Mapping[str, str]] = (),
    index: int | None = None,
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
    if index is not None:
        problem["index"] = index
    if faults:
        problem["errors"] = faults
    # ASCII only: a path or a field's name may hold what UTF-8 cannot encode.
    return json.dumps(problem).encode()
