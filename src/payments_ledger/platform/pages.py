"""Lists in pages: how many rows, from where, and the Link header that leads to the next page (RFC 8288)."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request

PAGE_LIMIT = 50
PAGE_LIMIT_MAX = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAX)]
Cursor = Annotated[str | None, Query(description="From the Link header of the page before")]


def link_to_next(request: Request, cursor: str) -> str:
    """The Link header's value: the request as it was, but beginning at the cursor."""
    parameters = {name: value for name, value in request.query_params.items() if name != "cursor"}
    return f'<{request.url.path}?{urlencode({**parameters, "cursor": cursor})}>; rel="next"'
