"""What AMQP delivers, decoded whatever its sender wrote: of its metadata, what cannot be read is left out.

pamqp refuses a whole frame for a timestamp beyond the year 9999 or a name that is not UTF-8, and aiormq then gives up
the connection. The broker delivers the message again over the next one, and so on: one message stops a queue.
"""

import struct
from collections.abc import Callable, Iterator

import structlog
from pamqp import decode
from pamqp.commands import Basic
from pamqp.common import FieldTable, FieldValue
from pamqp.header import ContentHeader

log = structlog.get_logger(__name__)

# A list or table among the headers may have this size: more would take pamqp a time that grows with its square. The
# broker's own, x-death, has some 200 bytes for each queue that a message came through.
NESTED_BYTES_MAX = 8 * 1024
# Bytes of a header's value by its type; the others begin with their length (the errata of AMQP 0-9-1 by RabbitMQ).
_FIXED_LENGTHS = {
    **dict.fromkeys(b"V\x00", 0),
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"D", 5),
    **dict.fromkeys(b"lLdT", 8),
}
_NESTED = b"AF"
# What pamqp, struct and datetime raise over bytes that mean nothing to them, or that nest too deeply.
_UNREADABLE = (struct.error, ValueError, TypeError, ArithmeticError, LookupError, OSError, RecursionError)


def install() -> None:
    """Has every connection of this process decode like this."""
    ContentHeader.unmarshal = _read_content_header  # type: ignore[method-assign, assignment]
    # Of a method's texts a stranger chooses one, the routing key.
    decode.METHODS["shortstr"] = _read_short_text


def read_properties(data: bytes) -> Basic.Properties:
    """The properties that can be read (AMQP 0-9-1, section 4.2.6.1)."""
    properties = Basic.Properties()
    left_out: list[str] = []
    try:
        [flags] = struct.unpack_from(">H", data)
        position = struct.calcsize(">H")
        for name, flag in properties.flags.items():
            if flags & flag:
                type_ = properties.amqp_type(name)
                piece = data[position : position + _length(type_, data, position)]
                position += len(piece)
                try:
                    setattr(properties, name, _READERS[type_](piece, left_out))
                except _UNREADABLE:
                    left_out.append(name)
    except _UNREADABLE:
        left_out.append("everything behind what has no end")
    if left_out:
        # How a header is called is up to its sender.
        log.warning("metadata cannot be read", left_out=[name[:100] for name in left_out[:10]])
    return properties


def _read_content_header(header: ContentHeader, data: bytes) -> None:
    header.class_id, header.weight, header.body_size = struct.unpack_from(">HHQ", data)
    header.properties = read_properties(data[struct.calcsize(">HHQ") :])


def _read_short_text(data: bytes) -> tuple[int, str]:
    """As pamqp's decoders: how many bytes it took, and the text, in which U+FFFD stands for what is not UTF-8."""
    length = data[0] + 1
    return length, data[1:length].decode(errors="replace")


def _length(type_: str, data: bytes, position: int) -> int:
    if type_ == "shortstr":
        return data[position] + 1
    if type_ == "table":
        return _prefixed_length(data, position)
    return {"octet": 1, "timestamp": 8}[type_]


def _prefixed_length(data: bytes, position: int) -> int:
    [length] = struct.unpack_from(">I", data, position)
    return int(length) + 4


def _read_headers(data: bytes, left_out: list[str]) -> FieldTable:
    headers: FieldTable = {}
    for name, value in _fields(data):
        try:
            headers[name.decode()] = _read_value(value)
        except _UNREADABLE:
            left_out.append(f"header {name!r}")
    return headers


def _fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of a table, which ends where one has no end."""
    position = 4
    while position < len(data):
        value_begins = position + 1 + data[position]
        name = data[position + 1 : value_begins]
        type_ = data[value_begins]
        length = _FIXED_LENGTHS.get(type_)
        position = value_begins + 1 + (_prefixed_length(data, value_begins + 1) if length is None else length)
        yield name, data[value_begins:position]


def _read_value(value: bytes) -> FieldValue:
    if value[0] in _NESTED and len(value) > NESTED_BYTES_MAX:
        raise ValueError("too long")
    _, decoded = decode.embedded_value(value)
    # A text that is not UTF-8; pamqp can send it on only so.
    return bytearray(decoded) if isinstance(decoded, bytes) else decoded


_READERS: dict[str, Callable[[bytes, list[str]], FieldValue | FieldTable]] = {
    "shortstr": lambda piece, _: piece[1:].decode(),
    "octet": lambda piece, _: piece[0],
    "timestamp": lambda piece, _: decode.timestamp(piece)[1],
    "table": _read_headers,
}
