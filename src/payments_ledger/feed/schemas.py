"""Events as they stand in responses."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from payments_ledger.feed.event import LoggedEvent

EVENT_EXAMPLE: JsonDict = {
    "id": "01a20568-9b2c-7d11-8e55-0242ac120002",
    "type": "payment.intent.created",
    "occurred_at": "2026-01-31T12:00:00Z",
    "position": 17,
    "aggregate_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "sequence": 1,
    "correlation_id": "corr-demo-1",
    "data": {
        "payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
        "tenant_id": "tenant_demo",
        "status": "CREATED",
        "amount": "100.00",
        "currency": "BRL",
        "customer_ref": "CUST-001",
        "order_id": None,
        "correlation_id": "corr-demo-1",
        "occurred_at": "2026-01-31T12:00:00Z",
    },
}


class FeedEvent(BaseModel):
    """`position` rises within the tenant and never changes; `data` is the body that goes to RabbitMQ."""

    model_config = ConfigDict(title="Event", json_schema_extra={"examples": [EVENT_EXAMPLE]})

    id: str
    type: str
    occurred_at: datetime
    position: int
    aggregate_id: str
    sequence: int
    correlation_id: str
    data: dict[str, Any]


def show_event(event: LoggedEvent) -> FeedEvent:
    """An event without a time of its own occurred when it was written."""
    return FeedEvent(
        id=str(event.id),
        type=event.type,
        occurred_at=event.payload.get("occurred_at", event.created_at),
        position=event.position,
        aggregate_id=str(event.aggregate_id),
        sequence=event.sequence,
        correlation_id=event.correlation_id,
        data=event.payload,
    )
