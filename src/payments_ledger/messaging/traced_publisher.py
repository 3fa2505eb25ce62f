"""Publishing that carries the trace of an event on: each message goes out in a span of its own."""

from collections.abc import Sequence
from dataclasses import replace

from payments_ledger.messaging.messages import Message
from payments_ledger.messaging.publisher import Delivery, Publisher
from payments_ledger.telemetry.tracing import exports_spans, start_span


class TracedPublisher:
    """A publisher whose messages name their own span as parent; without a collector they are passed on as they are."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        if not exports_spans():
            return await self._publisher.publish(messages)
        spans = [
            start_span(
                f"publish {message.type}",
                "PRODUCER",
                parent=message.headers.get("traceparent"),
                attributes={"messaging.message.id": message.id},
            )
            for message in messages
        ]
        traced = [
            replace(message, headers={**message.headers, "traceparent": span.traceparent}) if span else message
            for message, span in zip(messages, spans, strict=True)
        ]
        error: str | None = "not published"
        try:
            deliveries = await self._publisher.publish(traced)
            error = None
        finally:
            for span in filter(None, spans):
                span.end(error=error)
        return deliveries

    async def close(self) -> None:
        await self._publisher.close()
