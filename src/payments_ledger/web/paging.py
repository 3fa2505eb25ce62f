"""Lists in pages: how many rows, from where, and the Link header that leads to the next page (RFC 8288)."""

from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel

from payments_ledger.process.portions import in_portions

PAGE_LIMIT = 50
PAGE_LIMIT_MAX = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX, description="Rows of a page")]
Cursor = Annotated[str | None, Query(description="From the Link header of the page before")]


async def json_array(documents: Iterable[BaseModel]) -> Response:
    """A response of the documents in their order, written in portions, since each may be large."""
    parts = [document.model_dump_json().encode() async for document in in_portions(documents)]
    return Response(b"[" + b",".join(parts) + b"]", media_type="application/json")


def link_to_next(request: Request, cursor: str) -> str:
    """The Link header's value: the request as it was, but beginning at the cursor."""
    parameters = {name: value for name, value in request.query_params.items() if name != "cursor"}
    return f'<{request.url.path}?{urlencode({**parameters, "cursor": cursor})}>; rel="next"'
