"""An answer's head and body are one write, whatever comes between them."""

import asyncio
from typing import cast

import pytest

from payments_ledger.web.server import _HeadWithBody

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Sent:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
async def sent() -> Sent:
    return Sent()


@pytest.fixture
async def transport(sent: Sent) -> _HeadWithBody:
    return _HeadWithBody(cast("asyncio.Transport", sent))


async def test_a_head_goes_out_with_its_body(transport: _HeadWithBody, sent: Sent) -> None:
    transport.write(HEAD)
    transport.write(b"body")
    transport.write(b"more")
    assert sent.pieces == [HEAD + b"body", b"more"]
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD + b"body", b"more"]


async def test_a_head_does_not_wait_for_a_body_that_takes_its_time(transport: _HeadWithBody, sent: Sent) -> None:
    transport.write(HEAD)
    await asyncio.sleep(0)
    transport.write(b"body")
    assert sent.pieces == [HEAD, b"body"]


async def test_a_body_that_looks_like_a_head_stays_behind_its_own(transport: _HeadWithBody, sent: Sent) -> None:
    transport.write(HEAD)
    transport.write(HEAD)
    transport.write(HEAD)
    transport.write(b"body")
    assert b"".join(sent.pieces) == HEAD * 3 + b"body"


async def test_a_head_is_sent_before_the_connection_closes(transport: _HeadWithBody, sent: Sent) -> None:
    transport.write(HEAD)
    transport.close()
    assert sent.pieces == [HEAD]
    assert transport.is_closing()


async def test_a_head_for_a_client_that_has_gone_is_let_go(transport: _HeadWithBody, sent: Sent) -> None:
    transport.write(HEAD)
    sent.is_closed = True
    await asyncio.sleep(0)
    assert sent.pieces == []
