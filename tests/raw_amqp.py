"""Messages as no client library would send them: properties byte by byte, over a connection that checks nothing."""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import pamqp.frame
from pamqp import commands
from pamqp.base import Frame

# AMQP 0-9-1, section 2.3.5: the kinds of frames, and the octet that ends each.
HEADER, BODY, END = 2, 3, b"\xce"
CHANNEL = 1
FRAME_BYTES_MAX = 131_072
SECONDS_MAX = 20


def short_text(value: bytes) -> bytes:
    """A shortstr, whatever it holds."""
    return struct.pack("B", len(value)) + value


def long_text(value: bytes) -> bytes:
    """A longstr; a table and an array have the same shape on the wire."""
    return struct.pack(">I", len(value)) + value


def timestamp(value: int) -> bytes:
    return struct.pack(">Q", value)


def headers(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table; each value begins with the letter of its type."""
    return long_text(b"".join(short_text(name) + value for name, value in fields))


def integer(value: int) -> bytes:
    """The value of a header."""
    return b"l" + struct.pack(">q", value)


def text(value: bytes) -> bytes:
    """The value of a header."""
    return b"S" + long_text(value)


def properties(encoded: Mapping[str, bytes]) -> bytes:
    """Basic.Properties (section 4.2.6.1) from the bytes of each."""
    order = commands.Basic.Properties.flags
    flags = sum(order[name] for name in encoded)
    return struct.pack(">H", flags) + b"".join(encoded[name] for name in order if name in encoded)


class RawConnection:
    """One channel that confirms what is published."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 5672), timeout=SECONDS_MAX)
        self._read = self._socket.makefile("rb")
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(commands.Connection.Start)
        user = f"\0{parts.username}\0{parts.password}"
        self._call(commands.Connection.StartOk(mechanism="PLAIN", response=user), commands.Connection.Tune, 0)
        self._send(commands.Connection.TuneOk(channel_max=8, frame_max=FRAME_BYTES_MAX, heartbeat=0), 0)
        self._call(commands.Connection.Open(), commands.Connection.OpenOk, 0)
        self._call(commands.Channel.Open(), commands.Channel.OpenOk)
        self._call(commands.Confirm.Select(), commands.Confirm.SelectOk)

    def publish(self, exchange: str, routing_key: bytes, encoded: bytes, body: bytes) -> bool:
        """Whether the broker took it; if not, the connection is of no use any more."""
        # pamqp writes a routing key as text: one of its length makes room for the bytes.
        placeholder = "k" * len(routing_key)
        method = pamqp.frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=placeholder), CHANNEL)
        frames = [method.replace(short_text(placeholder.encode()), short_text(routing_key))]
        frames.append(_frame(HEADER, struct.pack(">HHQ", commands.Basic.frame_id, 0, len(body)) + encoded))
        room = FRAME_BYTES_MAX - 8
        frames += [_frame(BODY, body[start : start + room]) for start in range(0, len(body), room)]
        self._socket.sendall(b"".join(frames))
        return isinstance(self._receive(), commands.Basic.Ack)

    def close(self) -> None:
        self._read.close()
        self._socket.close()

    def _call(self, frame: Frame, answer: type[Frame], channel: int = CHANNEL) -> None:
        self._send(frame, channel)
        self._expect(answer)

    def _send(self, frame: Frame, channel: int) -> None:
        self._socket.sendall(pamqp.frame.marshal(frame, channel))

    def _expect(self, answer: type[Frame]) -> None:
        received = self._receive()
        assert isinstance(received, answer), received

    def _receive(self) -> object:
        """None if the broker has hung up."""
        head = self._read.read(7)
        if len(head) < 7:
            return None
        rest = self._read.read(struct.unpack(">BHI", head)[2] + 1)
        return pamqp.frame.unmarshal(head + rest)[2]


@contextmanager
def raw_connection(url: str) -> Iterator[RawConnection]:
    connection = RawConnection(url)
    try:
        yield connection
    finally:
        connection.close()


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, CHANNEL, len(payload)) + payload + END
