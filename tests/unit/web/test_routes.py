"""Routes read what their signature names, tell all faults at once, and are described as they are served."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from payments_ledger.errors import (
    BodyTooLarge,
    Invalid,
    InvalidHeader,
    InvalidParameter,
    LedgerError,
    MissingHeader,
    RepeatedHeader,
    Unauthenticated,
)
from payments_ledger.web.bodies import Body
from payments_ledger.web.routes import QUERY_PREFIX, DirectRoutes, Route, UpTo

pytestmark = pytest.mark.anyio

calls: list[str] = []


class Order(Body):
    name: Annotated[str, Field(min_length=1)]


class Receipt(BaseModel):
    text: str


async def who(request: Request) -> str:
    calls.append("who")
    if "x-user" not in request.headers:
        raise Unauthenticated
    return request.headers["x-user"]


def page(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> int:
    if limit == 13:
        raise InvalidParameter("limit")
    return limit


def twice(limit: Annotated[int, Depends(page)]) -> int:
    return 2 * limit


async def name_of(user: Annotated[str, Depends(who)]) -> str:
    return user.upper()


router = APIRouter(prefix="/things", route_class=Route)


@router.post("/{number}", status_code=201)
async def create(
    user: Annotated[str, Depends(who)],
    number: int,
    order: Annotated[Order, UpTo(100)],
    key: Annotated[str, Header(alias="Idempotency-Key", max_length=5)] = "none",
) -> Receipt:
    return Receipt(text=f"{user} {number} {order.name} {key}")


@router.get("", response_model=list[Receipt])
async def find(
    user: Annotated[str, Depends(who)],
    name: Annotated[str, Depends(name_of)],
    limit: Annotated[int, Depends(page)],
    double: Annotated[int, Depends(twice)],
    colour: Annotated[str | None, Query(alias="color")] = None,
) -> list[Receipt]:
    return [Receipt(text=f"{user} {name} {limit} {double} {colour}")]


def marks(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if name.startswith("mark.")}


setattr(marks, QUERY_PREFIX, "mark.")


@router.get("/search")
async def search(
    user: Annotated[str, Depends(who)],
    marks: Annotated[dict[str, str], Depends(marks)],
    sizes: Annotated[tuple[int, ...], Query(alias="size")] = (),
) -> Receipt:
    return Receipt(text=f"{user} {sizes} {marks}")


@router.post("/all")
async def create_all() -> Response:
    return Response("all")


@router.delete("/{number}", status_code=204)
async def remove(number: int, needed: Annotated[str, Header(alias="X-Needed", max_length=5)]) -> Response:
    return Response(status_code=204, headers={"X-Was": str(number), "X-Needed": needed})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(DirectRoutes, routers=[router])

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, LedgerError)
        if isinstance(error, Invalid):
            return Response("; ".join(f"{fault.place}: {fault.detail}" for fault in error.faults), 422)
        return Response(type(error).__name__, 400)

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Response(error.detail, error.status_code, error.headers)

    app.add_exception_handler(LedgerError, problem)
    app.add_exception_handler(HTTPException, other)
    calls.clear()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"X-User": "ann"}) as client:
        yield client


async def test_arguments_come_from_where_the_signature_says(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things/7", json={"name": "a"}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()) == (201, {"text": "ann 7 a k"})
    answer = await client.get("/things", params={"limit": "3", "color": "red"})
    assert answer.json() == [{"text": "ann ANN 3 6 red"}]
    answer = await client.request("DELETE", "/things/4", headers={"X-Needed": "yes"})
    assert (answer.status_code, answer.headers["X-Was"]) == (204, "4")


async def test_a_dependency_is_called_once_for_a_request(client: httpx.AsyncClient) -> None:
    await client.get("/things")
    assert calls == ["who"]


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("", "ann () {}"),
        ("size=3", "ann (3,) {}"),
        ("size=3&mark.a=x&size=1&mark.b=", "ann (3, 1) {'mark.a': 'x', 'mark.b': ''}"),
    ],
)
async def test_a_tuple_of_the_query_may_be_repeated_and_a_family_of_names_is_its_dependencys(
    client: httpx.AsyncClient, query: str, read: str
) -> None:
    answer = await client.get(f"/things/search?{query}")
    assert answer.json() == {"text": read}


JSON = {"Content-Type": "application/json"}
NUMBER = "number: must be a whole number"


@pytest.mark.parametrize(
    ("method", "path", "sent", "expected"),
    [
        (
            "POST",
            "/things/x?a=1",
            {"json": {"name": "", "tip": 1}},
            (422, f"{NUMBER}; name: must not be empty; tip: is not known here; a: is not known here"),
        ),
        ("POST", "/things/x", {"content": b"", "headers": JSON}, (422, f"{NUMBER}; body: is required")),
        ("POST", "/things/7?b=2&a=1", {"json": {"name": "a"}}, (422, "a: is not known here; b: is not known here")),
        ("POST", "/things/7", {"json": {"name": "a" * 100}}, (400, BodyTooLarge.__name__)),
        ("DELETE", "/things/7", {"headers": {"X-Needed": "123456"}}, (400, InvalidHeader.__name__)),
        ("GET", "/things?limit=0&size=1", {}, (422, "limit: must be at least 1; size: is not known here")),
        ("GET", "/things?limit=1&limit=2", {}, (422, "limit: was sent more than once")),
        ("GET", "/things?limit=13&b=1", {}, (422, f"limit: {InvalidParameter.message}; b: is not known here")),
        ("GET", "/things/search?size=1&size=x", {}, (422, "size: must be a whole number")),
        ("GET", "/things/search?mark=1&marks.a=1", {}, (422, "mark: is not known here; marks.a: is not known here")),
        ("DELETE", "/things/x", {}, (400, MissingHeader.__name__)),
        ("DELETE", "/things/1", {"headers": [("X-Needed", "1"), ("X-Needed", "2")]}, (400, RepeatedHeader.__name__)),
        ("DELETE", "/nothing", {}, (404, "Not Found")),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_told_by_name(
    client: httpx.AsyncClient, method: str, path: str, sent: dict[str, Any], expected: tuple[int, str]
) -> None:
    answer = await client.request(method, path, **sent)
    assert (answer.status_code, answer.text) == expected


async def test_who_is_not_known_is_told_so_before_anything_else_is_read(client: httpx.AsyncClient) -> None:
    del client.headers["X-User"]
    answer = await client.post("/things/x", content=b"{", headers=JSON)
    assert answer.text == Unauthenticated.__name__


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/things", "GET"), ("GET", "/things/7", "DELETE, POST"), ("DELETE", "/things/all", "POST")],
)
async def test_a_method_that_a_path_does_not_have_is_told_those_that_it_has(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


async def test_the_document_describes_what_is_read_and_answered(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert [parameter["name"] for parameter in paths["/things"]["get"]["parameters"]] == ["color", "limit"]
    [size] = paths["/things/search"]["get"]["parameters"]
    assert (size["name"], size["schema"]["type"]) == ("size", "array")
    post = paths["/things/{number}"]["post"]
    assert [parameter["name"] for parameter in post["parameters"]] == ["number", "Idempotency-Key"]
    assert "Order" in str(post["requestBody"])
    assert "Receipt" in str(post["responses"]["201"])


def test_a_parameter_that_is_read_from_nowhere_is_a_fault_of_ours() -> None:
    with pytest.raises(TypeError, match="Nothing says where oops is read from"):

        @router.get("/oops")
        async def oops(oops: dict[str, str] | None) -> None: ...  # noqa: V107
