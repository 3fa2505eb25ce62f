"""A copy can be sent, whatever the message carried."""

import aio_pika
from hypothesis import given

from payments_ledger.rabbitmq import lenient_decoding
from payments_ledger.rabbitmq.copies import HEADERS_BYTES_MAX, copy_of
from tests.poison import PROPERTIES
from tests.raw_amqp import properties


@given(PROPERTIES)
def test_what_was_read_can_be_sent_on(encoded: dict[str, bytes]) -> None:
    read = lenient_decoding.read_properties(properties(encoded))
    incoming = aio_pika.Message(
        b"",
        headers=read.headers,
        message_id=read.message_id,
        timestamp=read.timestamp,
        correlation_id=read.correlation_id,
        type=read.message_type,
    )
    assert len(copy_of(incoming, {"x-attempts": 1}).properties.marshal()) < HEADERS_BYTES_MAX * 2  # type: ignore[arg-type]
