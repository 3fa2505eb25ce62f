"""What is written in one turn of the event loop goes out in one piece, and nothing of it is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from payments_ledger.rabbitmq.frames_together import _Writer

pytestmark = pytest.mark.anyio


class Sent(asyncio.Transport):
    """Notes what is sent, and when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.pieces.append(b"EOF")

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


@pytest.fixture
async def sent() -> Sent:
    return Sent()


@pytest.fixture
async def writer(sent: Sent) -> AsyncIterator[_Writer]:
    reader = asyncio.StreamReader()
    sent.set_protocol(asyncio.StreamReaderProtocol(reader))
    writer = _Writer(sent, reader)
    yield writer
    writer.close()


async def test_frames_of_one_turn_are_one_piece_and_those_of_the_next_another(writer: _Writer, sent: Sent) -> None:
    writer.write(b"a")
    writer.writelines([b"b", b"c"])
    await writer.drain()
    assert sent.pieces == []
    await asyncio.sleep(0)
    assert sent.pieces == [b"abc"]
    writer.write(b"d")
    await asyncio.sleep(0)
    assert sent.pieces == [b"abc", b"d"]


async def test_what_was_written_before_the_end_is_sent_before_it(writer: _Writer, sent: Sent) -> None:
    writer.write(b"a")
    writer.write_eof()
    assert sent.pieces == [b"a", b"EOF"]
    writer.write(b"b")
    writer.close()
    assert sent.pieces == [b"a", b"EOF", b"b"]
    await asyncio.sleep(0)
    assert sent.pieces == [b"a", b"EOF", b"b"]


async def test_what_is_written_to_a_lost_connection_is_let_go(writer: _Writer, sent: Sent) -> None:
    writer.write(b"a")
    sent.is_closed = True
    await asyncio.sleep(0)
    assert sent.pieces == []
