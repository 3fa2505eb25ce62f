"""Bytes in, properties out: whatever a sender wrote, reading it ends without an error."""

from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import FieldValue
from hypothesis import given
from hypothesis import strategies as st

from payments_ledger.rabbitmq import lenient_decoding


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_reading_properties_ends_without_an_error(data: bytes) -> None:
    lenient_decoding.read_properties(data)


@given(st.integers(0, 2**32 - 1), st.text(max_size=60), st.text(max_size=60))
def test_what_a_client_library_encodes_is_read_as_it_was(seconds: int, id_: str, value: str) -> None:
    fields: dict[str, FieldValue] = {"h": value, "n": 7, "l": [True, None, {"": "x"}]}
    at = datetime.fromtimestamp(seconds, UTC)
    written = aio_pika.Message(b"", headers=fields, timestamp=at, message_id=id_)
    read = lenient_decoding.read_properties(written.properties.marshal())
    assert (read.timestamp, read.headers, read.message_id) == (at, fields, id_ or None)
