"""A queue of each test's own, and who publishes to it."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from pamqp.header import ContentHeader

from payments_ledger.messaging.subscription import Queue
from payments_ledger.rabbitmq.publisher import RabbitPublisher
from tests.services import RabbitmqServer


@pytest.fixture
def queue() -> Queue:
    name = uuid4().hex
    return Queue(f"q.{name}", ((f"x.{name}", "it.happened"),), f"dead.{name}")


@pytest.fixture
async def publisher(rabbitmq_server: RabbitmqServer, queue: Queue) -> AsyncIterator[RabbitPublisher]:
    publisher = RabbitPublisher(rabbitmq_server.url, queue.bindings[0][0], [queue])
    yield publisher
    await publisher.close()


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that our decoding does not know, either."""
    decode = ContentHeader.unmarshal

    def refuse(header: ContentHeader, data: bytes) -> None:
        decode(header, data)
        if header.properties.app_id == "poison":
            raise ValueError("unforeseen")

    monkeypatch.setattr(ContentHeader, "unmarshal", refuse)
