"""Lists are filtered by any key of metadata; a filter that could find nothing is refused by name."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query, Request, Response

from payments_ledger.errors import InvalidRequest
from payments_ledger.validation.metadata import KEY_LENGTH_MAX, PAIRS_MAX, VALUE_LENGTH_MAX
from payments_ledger.web.metadata_filter import METADATA_PARAMETER, MetadataFilter
from payments_ledger.web.routes import DirectRoutes, Route

pytestmark = pytest.mark.anyio

router = APIRouter(route_class=Route)


@router.get("/things", openapi_extra=METADATA_PARAMETER)
async def find(metadata: MetadataFilter, colour: Annotated[str | None, Query()] = None) -> dict[str, str]:  # noqa: V107
    return dict(metadata)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(DirectRoutes, routers=[router])

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, InvalidRequest)
        return Response("; ".join(f"{fault.place}: {fault.detail}" for fault in error.faults), 422)

    app.add_exception_handler(InvalidRequest, problem)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_all_pairs_are_read_as_they_were_sent(client: httpx.AsyncClient) -> None:
    answer = await client.get("/things?metadata.a=1&metadata.b.c=%C3%A9+x&metadata.d=&metadata.KEY=2")
    assert answer.json() == {"a": "1", "b.c": "\u00e9 x", "d": "", "KEY": "2"}
    assert (await client.get("/things")).json() == {}


KEYS = f"must have keys of 1 to {KEY_LENGTH_MAX} letters, digits, _ . -"


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("metadata=1", "metadata: is not known here"),
        ("metadata.=1", f"metadata.: {KEYS}"),
        ("metadata.a%20b=1", f"metadata.a b: {KEYS}"),
        (f"metadata.{'k' * (KEY_LENGTH_MAX + 1)}=1", f"metadata.{'k' * (KEY_LENGTH_MAX + 1)}: {KEYS}"),
        (f"metadata.a={'v' * (VALUE_LENGTH_MAX + 1)}", f"metadata.a: must have at most {VALUE_LENGTH_MAX} characters"),
        ("metadata.a=%00", "metadata.a: must not hold control characters or lone surrogates"),
        ("metadata.a=4111111111111111", "metadata.a: must not hold what looks like a card number"),
        ("metadata.a=1&metadata.a=1", "metadata.a: was sent more than once"),
        (
            "&".join(f"metadata.{number}=1" for number in range(PAIRS_MAX + 1)),
            f"metadata: must have at most {PAIRS_MAX} keys",
        ),
        ("metadata.a=1&metadata.=1&size=1", f"metadata.: {KEYS}; size: is not known here"),
    ],
)
async def test_a_filter_that_nothing_could_meet_is_refused_by_name(
    client: httpx.AsyncClient, query: str, refusal: str
) -> None:
    answer = await client.get(f"/things?{query}")
    assert (answer.status_code, answer.text) == (422, refusal)


async def test_the_document_has_a_parameter_that_stands_for_any_key(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()["paths"]["/things"]["get"]["parameters"]
    assert [parameter["name"] for parameter in described] == ["colour", "metadata.KEY"]
