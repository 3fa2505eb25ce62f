"""The OpenAPI document: what the framework finds in the routes, and what it cannot know of responses and errors."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, get_args, get_origin

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from payments_ledger import errors
from payments_ledger.errors import LedgerError
from payments_ledger.validation.faults import UNKNOWN
from payments_ledger.web.problems import MEDIA_TYPE, REFERENCE, Problem, method_not_allowed_body, problem_body

type Document = dict[str, Any]

JSON = "application/json"
CORRELATION_ID = "f0fd655f-a48a-4186-ad6d-3af1fb44c51b"

TAGS = (
    {"name": "auth", "description": "Tokens, and who their bearers are."},
    {
        "name": "payment intents",
        "description": "What is to be paid: created, then confirmed; a moment later the worker settles it. "
        "A manual one waits for its capture.",
    },
    {"name": "refunds", "description": "What was given back of settled payments. A refund never changes."},
    {"name": "events", "description": "What happened, in an order that never changes: for whoever reads no broker."},
    {"name": "ledger", "description": "The tenant's books, in double entry. They are only ever added to."},
    {
        "name": "administration",
        "description": "Policies, users, the tenant itself, its audit log, and injected faults. Needs the role admin.",
    },
    {"name": "operation", "description": "For load balancers, probes and Prometheus."},
)
SERVERS = (
    {"url": "/", "description": "The server that this document comes from."},
    {"url": "http://localhost:8000", "description": "An engine of your own (scripts/dev.sh, scripts/up.sh)."},
)

HEADERS: Mapping[str, Document] = {
    "X-Correlation-Id": {
        "description": "The request's own, or a new one. It finds the request in logs, events and audit log.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"},
        "example": CORRELATION_ID,
    },
    "RateLimit-Policy": {
        "description": "The limit that the request counts against: `q` requests in `w` seconds.",
        "schema": {"type": "string"},
        "example": '"write";q=60;w=60',
    },
    "RateLimit": {
        "description": "What is left of the limit: `r` requests for the next `t` seconds.",
        "schema": {"type": "string"},
        "example": '"write";r=59;t=60',
    },
    "Retry-After": {
        "description": "After so many seconds the request may be repeated, with the same Idempotency-Key.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "Location": {
        "description": "Where what was made can be read.",
        "schema": {"type": "string"},
        "example": "/v1/payment-intents/01a20568-8a1a-72a7-9083-66e400122dd8",
    },
    "Link": {
        "description": "Where the next page is (RFC 8288). The last page has none.",
        "schema": {"type": "string"},
        "example": '</v1/ledger/entries?limit=50&cursor=AAZEzqR>; rel="next"',
    },
    "Idempotent-Replayed": {
        "description": "The response is that of an earlier request with this Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
        "example": "true",
    },
    "WWW-Authenticate": {
        "description": "How to prove who one is.",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Allow": {"description": "The methods of this path.", "schema": {"type": "string"}, "example": "POST"},
}

PROBLEMS: Mapping[int, LedgerError] = {
    HTTPStatus.BAD_REQUEST: errors.MissingHeader("X-Tenant-Id"),
    HTTPStatus.UNAUTHORIZED: errors.Unauthenticated(),
    HTTPStatus.FORBIDDEN: errors.PermissionDenied("This needs the permission payments:write."),
    HTTPStatus.NOT_FOUND: errors.UnknownTenant(),
    HTTPStatus.REQUEST_TIMEOUT: errors.BodyTooSlow(),
    HTTPStatus.CONFLICT: errors.WouldLockOutAdministrator(),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errors.BodyTooLarge(),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: errors.UnsupportedMediaType(),
    HTTPStatus.UNPROCESSABLE_ENTITY: errors.InvalidRequest([errors.Fault(UNKNOWN, parameter="limt")]),
    HTTPStatus.TOO_MANY_REQUESTS: errors.RateLimited(17),
    HTTPStatus.SERVICE_UNAVAILABLE: errors.TooBusy(),
}
# Where another error is the better example.
PROBLEMS_BY_TAG: Mapping[tuple[str, int], LedgerError] = {
    ("auth", HTTPStatus.BAD_REQUEST): errors.MalformedJson("The body is not JSON: Syntax error at character 1."),
    ("auth", HTTPStatus.UNAUTHORIZED): errors.BadCredentials(),
    ("auth", HTTPStatus.FORBIDDEN): errors.TenantSuspended(),
    ("payment intents", HTTPStatus.NOT_FOUND): errors.PaymentNotFound(),
    ("payment intents", HTTPStatus.CONFLICT): errors.AlreadyMoved("The payment is AUTHORIZED already."),
    ("ledger", HTTPStatus.CONFLICT): errors.InsufficientFunds(
        "WALLET.C001 would have -10.00 BRL available; its minimum is 0.00 BRL."
    ),
    ("payment intents", HTTPStatus.UNPROCESSABLE_ENTITY): errors.InvalidAmount(
        "JPY has 0 decimal places; the amount has more."
    ),
    ("events", HTTPStatus.NOT_FOUND): errors.EventNotFound(),
    ("events", HTTPStatus.GONE): errors.CursorExpired(10_001),
    ("refunds", HTTPStatus.NOT_FOUND): errors.RefundNotFound(),
    ("refunds", HTTPStatus.CONFLICT): errors.AmountExceedsRefundable(),
}


def operation_id(route: APIRoute) -> str:
    """As generators of clients like it: create_payment_intent is `createPaymentIntent`."""
    return to_camel(route.name)


def complete_document(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Adds problems, response headers and examples of these routes to the application's document."""
    models = [route.response_model for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.openapi = _once(app.openapi, _examples(models))  # type: ignore[method-assign]


def _once(describe: Callable[[], Document], examples: Mapping[str, Any]) -> Callable[[], Document]:
    completed: list[Document] = []

    def document() -> Document:
        if not completed:
            completed.append(_complete(describe(), examples))
        return completed[0]

    return document


def _examples(models: Iterable[Any]) -> dict[str, Any]:
    """The models' examples by their names. Those in FastAPI's document lack every member that is null."""
    examples: dict[str, Any] = {}
    for model in models:
        shown = get_args(model)[0] if get_origin(model) is list else model
        if inspect.isclass(shown) and issubclass(shown, BaseModel):
            extra = shown.model_config.get("json_schema_extra")
            examples |= {shown.__name__: extra["examples"]} if isinstance(extra, dict) else {}
    return examples


def _complete(document: Document, examples: Mapping[str, Any]) -> Document:
    components = document["components"]
    for name in examples.keys() & components["schemas"].keys():
        components["schemas"][name]["examples"] = examples[name]
    # FastAPI adds the schemas of JSON bodies only.
    problem = Problem.model_json_schema(ref_template=REFERENCE)
    components["schemas"] |= problem.pop("$defs") | {Problem.__name__: problem}
    components["headers"] = dict(HEADERS)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for content in [operation.get("requestBody", {}), *operation["responses"].values()]:
                _add_example(content, components["schemas"])
            for status, response in operation["responses"].items():
                names = _headers_of(path, operation, int(status))
                response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
                if MEDIA_TYPE in response.get("content", {}):
                    response["content"][MEDIA_TYPE]["example"] = _problem(path, operation["tags"][0], int(status))
    return document


def _add_example(content: Document, schemas: Mapping[str, Document]) -> None:
    """That of the model, for a body which is one or an array of such."""
    described = content.get("content", {}).get(JSON, {})
    if not described or "example" in described:
        return
    schema = described["schema"]
    reference = schema.get("items", schema).get("$ref", "")
    for example in schemas.get(reference.rpartition("/")[2], {}).get("examples", [])[:1]:
        described["example"] = [example] if "items" in schema else example


def _headers_of(path: str, operation: Document, status: int) -> Iterator[str]:
    parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
    yield "X-Correlation-Id"
    if path.startswith("/v1/"):
        yield from ("RateLimit-Policy", "RateLimit")
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        yield "Retry-After"
    if status == HTTPStatus.CREATED:
        yield "Location"
    if status == HTTPStatus.OK and "cursor" in parameters:
        yield "Link"
    # The response to what is refused before it is carried out is not stored.
    is_stored = status < HTTPStatus.BAD_REQUEST or status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
    if "Idempotency-Key" in parameters and is_stored:
        yield "Idempotent-Replayed"
    if status == HTTPStatus.UNAUTHORIZED:
        yield "WWW-Authenticate"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        yield "Allow"


def _problem(path: str, tag: str, status: int) -> Document:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        body = method_not_allowed_body(path, CORRELATION_ID)
    else:
        error = PROBLEMS_BY_TAG.get((tag, status)) or PROBLEMS[status]
        body = problem_body(error, instance=path, correlation_id=CORRELATION_ID)
    example: Document = json.loads(body)
    return example
