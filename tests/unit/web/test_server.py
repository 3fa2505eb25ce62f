"""What is written in one turn of the event loop goes out in one piece, and nothing is held beyond it."""

import asyncio
from typing import cast

import pytest

from payments_ledger.web.server import _TurnTransport

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
async def transport(sent: Sent) -> _TurnTransport:
    return _TurnTransport(cast("asyncio.Transport", sent))


async def test_a_head_goes_out_with_its_body(transport: _TurnTransport, sent: Sent) -> None:
    transport.write(HEAD)
    transport.write(b"body")
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD + b"body"]


async def test_a_head_does_not_wait_for_a_body_that_comes_later(transport: _TurnTransport, sent: Sent) -> None:
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD]
    transport.write(b"body")
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD, b"body"]


async def test_responses_of_one_turn_keep_their_order(transport: _TurnTransport, sent: Sent) -> None:
    for number in range(3):
        transport.write(HEAD)
        transport.write(b"body %d" % number)
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD + b"body 0" + HEAD + b"body 1" + HEAD + b"body 2"]


async def test_what_was_written_is_sent_before_the_connection_closes(transport: _TurnTransport, sent: Sent) -> None:
    transport.write(HEAD)
    transport.close()
    assert sent.pieces == [HEAD]
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert sent.pieces == [HEAD]


async def test_a_response_for_a_client_that_has_gone_is_dropped(transport: _TurnTransport, sent: Sent) -> None:
    transport.write(HEAD)
    sent.is_closed = True
    await asyncio.sleep(0)
    assert sent.pieces == []
