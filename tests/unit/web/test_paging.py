"""The link to the next page repeats the request as it was, to the last filter."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from pydantic import BaseModel
from starlette.datastructures import URL

from payments_ledger.web.cursors import CursorSigner
from payments_ledger.web.paging import Page, Position

pytestmark = pytest.mark.anyio

CURSORS = CursorSigner("secret")


class Row(BaseModel):
    number: int


def position(row: Row) -> Position:
    return datetime(2026, 1, row.number, tzinfo=UTC), UUID(int=row.number)


@pytest.mark.parametrize("query", ["", "a=1&a=2", "metadata.x=&b=%26+%2B%C3%A9", "a=1&cursor=old&limit=2"])
async def test_the_link_has_all_that_was_sent_and_the_place_after_the_last_row(query: str) -> None:
    page = Page(URL(f"http://test/things?{query}"), CURSORS, "things", 2, None)
    rows = [Row(number=number) for number in (3, 2, 1)]
    response = await page.response(rows[: page.rows_wanted], lambda row: row, position)
    assert response.body == b'[{"number":3},{"number":2}]'
    target = urlsplit(response.headers["Link"].removeprefix("<").removesuffix('>; rel="next"'))
    *parameters, (name, cursor) = parse_qsl(target.query, keep_blank_values=True)
    assert (target.path, name) == ("/things", "cursor")
    assert parameters == [each for each in parse_qsl(query, keep_blank_values=True) if each[0] != "cursor"]
    assert Page(URL("http://test/things"), CURSORS, "things", 2, cursor).after == position(rows[1])


async def test_the_last_page_has_no_link() -> None:
    page = Page(URL("http://test/things"), CURSORS, "things", 2, None)
    assert "Link" not in (await page.response([Row(number=1)] * 2, lambda row: row, position)).headers


async def test_a_page_that_ended_early_has_a_link_to_where_the_list_goes_on() -> None:
    page = Page(URL("http://test/things"), CURSORS, "things", 2, None)
    place = position(Row(number=9))
    response = await page.response([], lambda row: row, position, goes_on_after=place)
    cursor = dict(parse_qsl(urlsplit(response.headers["Link"][1:].partition(">")[0]).query))["cursor"]
    assert (response.body, Page(URL("http://test/"), CURSORS, "things", 2, cursor).after) == (b"[]", place)
