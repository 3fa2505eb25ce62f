"""Metadata of messages that has ended consumers, each kind by its name."""

import struct

from hypothesis import strategies as st

from payments_ledger.rabbitmq.copies import MARKS
from tests.raw_amqp import headers, integer, long_text, properties, short_text, text, timestamp


def nested(levels: int) -> bytes:
    """Lists in lists."""
    value = long_text(b"")
    for _ in range(levels):
        value = long_text(b"A" + value)
    return b"A" + value


MICROSECONDS_OF_2026 = 1_767_225_600_000_000
FOREVER = timestamp(2**64 - 1)


def hostile_metadata(queue_name: str) -> dict[str, bytes]:
    """Properties that a broker takes and that have ended consumers; the queue is where they go."""
    return {
        "a timestamp in microseconds": properties({"timestamp": timestamp(MICROSECONDS_OF_2026)}),
        "the last timestamp there is": properties({"timestamp": FOREVER}),
        "a message id that is not UTF-8": properties({"message_id": short_text(b"\xff\xfe")}),
        "a type that is not UTF-8": properties({"message_type": short_text(b"\xc3")}),
        "every text that is not UTF-8": properties(
            dict.fromkeys(
                ("content_type", "content_encoding", "correlation_id", "reply_to", "app_id"), short_text(b"\x80")
            )
        ),
        "a type with a NUL": properties({"message_type": short_text(b"\x00")}),
        "more attempts than there are numbers": properties({"headers": headers([(b"x-attempts", integer(2**63 - 1))])}),
        "fewer attempts than none": properties({"headers": headers([(b"x-attempts", integer(-(2**63)))])}),
        "a header with a timestamp": properties({"headers": headers([(b"h", b"T" + FOREVER)])}),
        "a header with a double": properties({"headers": headers([(b"h", b"d" + struct.pack(">d", 1e300))])}),
        "a header with a decimal": properties({"headers": headers([(b"h", b"D\xff\x7f\xff\xff\xff")])}),
        "a header that is not UTF-8": properties({"headers": headers([(b"h", text(b"\xff"))])}),
        "a header in a header that is not UTF-8": properties(
            {"headers": headers([(b"h", b"F" + headers([(b"\xff", text(b"\xff"))]))])}
        ),
        "a header's name that is not UTF-8": properties({"headers": headers([(b"\xff" * 255, integer(1))])}),
        "a header's name that is too long": properties({"headers": headers([(b"n" * 255, integer(1))])}),
        "lists in lists in lists": properties({"headers": headers([(b"h", nested(9000))])}),
        "a long list": properties({"headers": headers([(b"h", b"A" + long_text(b"V" * 120_000))])}),
        "headers that fill a frame": properties({"headers": headers([(b"h", text(b"h" * 130_900))])}),
        "our marks": properties(
            {"headers": headers([(name.encode(), b"T" + FOREVER) for name in MARKS] + [(b"x-death", integer(1))])}
        ),
        "another queue, its own": properties(
            {"headers": headers([(b"CC", b"A" + long_text(text(queue_name.encode())))])}
        ),
    }


# What no client library encodes, and what it does encode: names that mean something to us or to the broker are among
# them.
TEXTS = st.binary(max_size=40) | st.text(max_size=10).map(str.encode)


NAMES = TEXTS | st.sampled_from(
    [
        *(name.encode() for name in MARKS),
        b"x-death",
        b"x-delivery-count",
        b"X-Tenant-Id",
        b"traceparent",
        b"BCC",
    ]
)


def fixed(letter: bytes, length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length).map(lambda value: letter + value)


SCALARS = st.one_of(
    *(fixed(letter, 1) for letter in (b"b", b"B")),
    st.sampled_from([b"t\x00", b"t\x01", b"V"]),
    *(fixed(letter, 2) for letter in (b"s", b"u")),
    *(fixed(letter, 4) for letter in (b"I", b"i", b"f")),
    *(fixed(letter, 8) for letter in (b"l", b"d", b"T")),
    fixed(b"D", 5),
    TEXTS.map(text),
    TEXTS.map(lambda value: b"x" + long_text(value)),
)


VALUES = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(values, max_size=4).map(lambda items: b"A" + long_text(b"".join(items)))
        | st.lists(st.tuples(TEXTS, values), max_size=4).map(lambda fields: b"F" + headers(fields))
    ),
    max_leaves=8,
)


SHORT_TEXTS = TEXTS.map(short_text)


PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": SHORT_TEXTS,
        "content_encoding": SHORT_TEXTS,
        "headers": st.lists(st.tuples(NAMES, VALUES), max_size=6).map(headers),
        "delivery_mode": st.sampled_from([b"\x01", b"\x02", b"\x02", b"\x07"]),
        "priority": st.binary(min_size=1, max_size=1),
        "correlation_id": SHORT_TEXTS,
        "reply_to": SHORT_TEXTS,
        "expiration": st.sampled_from([b"60000", b"", b"-1", b"1e3"]).map(short_text),
        "message_id": SHORT_TEXTS,
        "timestamp": st.integers(0, 2**64 - 1).map(timestamp),
        "message_type": SHORT_TEXTS,
        "user_id": st.sampled_from([b"guest", b"somebody"]).map(short_text),
        "app_id": SHORT_TEXTS,
    },
)


BODIES = st.binary(max_size=200) | st.sampled_from([b"bad", b"later"])
