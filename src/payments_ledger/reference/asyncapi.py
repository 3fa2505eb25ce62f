"""docs/asyncapi.yaml: the messages that we send and understand, written from the types that make and read them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from payments_ledger.ledger.chart.events import CLOSED, CREATED, REOPENED, AccountEvent
from payments_ledger.ledger.transactions.events import (
    EXPIRED,
    PENDING,
    POSTED,
    REVERSED,
    VOIDED,
    TransactionEvent,
    TransactionReversed,
)
from payments_ledger.orders.order import (
    CURRENCY_DEFAULT,
    ORDER_CANCELLED,
    ORDER_CONFIRMED,
    PAYMENT_CHARGE_REQUESTED,
    OrderCancelled,
    OrderConfirmed,
)
from payments_ledger.payments.events import BODIES, PaymentEvent
from payments_ledger.payments.lifecycle import CAPTURE, MOVES, REFUND
from payments_ledger.process.settings import Settings
from payments_ledger.queues import PAYMENTS_EXCHANGE
from payments_ledger.refunds.events import PaymentRefunded
from payments_ledger.tenants.consumer import TENANT_CREATED, TENANT_DELETED, TENANT_UPDATED, TenantMessage

VERSION = "1.0.0"

_PAYMENT = {
    "payment_intent_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "tenant_id": "00000000-0000-0000-0000-000000000002",
    "amount": "239.70",
    "currency": "BRL",
    "customer_ref": "order:0199c1de-6f00-7000-8000-000000000001",
    "order_id": "0199c1de-6f00-7000-8000-000000000001",
    "correlation_id": "corr-demo-1",
    "occurred_at": "2026-01-31T12:00:00Z",
}
_TRANSACTION = {
    "transaction_id": "01a20568-8a1a-72a7-9083-66e400122dd8",
    "tenant_id": "00000000-0000-0000-0000-000000000002",
    "kind": "transaction",
    "reference": "deposit-2026-0001",
    "correlation_id": "corr-demo-1",
    "occurred_at": "2026-01-31T12:00:00Z",
    "effective_at": "2026-01-31T12:00:00Z",
    "postings": [{"debit": "CASH", "credit": "WALLET.C001", "amount": "100.00", "currency": "BRL"}],
}
_ACCOUNT = {
    "code": "WALLET.C001",
    "tenant_id": "00000000-0000-0000-0000-000000000002",
    "name": "Wallet of customer C001",
    "type": "liability",
    "correlation_id": "corr-demo-1",
    "occurred_at": "2026-01-31T12:00:00Z",
}
# What some of the events say besides.
_MORE: dict[str, dict[str, Any]] = {
    "payment.capture_requested": {"amount_captured": "200.00", "amount_released": "39.70"},
    "payment.settled": {"amount_authorized": "239.70"},
    "payment.failed": {"failure_code": "card_declined", "failure_message": "The bank declined it."},
    "payment.cancelled": {"cancellation_reason": "requested_by_customer"},
    "payment.refunded": {
        "refund_id": "01a20568-9b2c-7d11-8e55-0242ac120002",
        "refund_amount": "39.70",
        "amount_refunded": "39.70",
        "reference": "RET-2026-0001",
    },
}
_ORDER = {
    "orderId": "0199c1de-6f00-7000-8000-000000000001",
    "tenantId": "00000000-0000-0000-0000-000000000002",
    "customerId": "CUST-1",
    "currency": "BRL",
    "totalAmount": 239.7,
    "correlationId": "corr-demo-1",
    "items": [{"qty": 3, "sku": "SKU-2", "price": 79.9}],
}
_TENANT = {"tenantId": "tenant_demo", "name": "Demo", "plan": "pro", "region": "region-a"}

_SENT_HEADERS = {
    "type": "object",
    "required": ["X-Correlation-Id", "X-Tenant-Id"],
    "properties": {
        "X-Correlation-Id": {"type": "string"},
        "X-Tenant-Id": {"type": "string"},
        "traceparent": {"type": "string", "description": "W3C trace context"},
    },
}

# What we send, by routing key: the type of its body and an example.
SENT: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    event: (BODIES.get(event, PaymentEvent), {**_PAYMENT, "status": status.value, **_MORE.get(event, {})})
    for event, status in (
        *((move.event, move.after) for move in MOVES),
        (CAPTURE.event, CAPTURE.status),
    )
} | {REFUND.event: (PaymentRefunded, {**_PAYMENT, "status": REFUND.status.value, **_MORE[REFUND.event]})}
SENT |= dict.fromkeys((POSTED, PENDING, VOIDED, EXPIRED), (TransactionEvent, _TRANSACTION))
SENT |= {
    REVERSED: (TransactionReversed, {**_TRANSACTION, "reversal_id": "01a20568-9b2c-7d11-8e55-0242ac120002"}),
    **dict.fromkeys((CREATED, CLOSED, REOPENED), (AccountEvent, _ACCOUNT)),
}
# What we understand, by the setting or name of the exchange that it comes from.
UNDERSTOOD: dict[str, dict[str, tuple[type[BaseModel], dict[str, Any]]]] = {
    "orders": {
        ORDER_CONFIRMED: (OrderConfirmed, _ORDER),
        ORDER_CANCELLED: (OrderCancelled, {name: _ORDER[name] for name in ("orderId", "tenantId", "correlationId")}),
    },
    "payments": {PAYMENT_CHARGE_REQUESTED: (OrderConfirmed, _ORDER)},
    "tenants": dict.fromkeys((TENANT_CREATED, TENANT_UPDATED, TENANT_DELETED), (TenantMessage, _TENANT)),
}


def document() -> str:
    """The AsyncAPI 3.0 document as YAML."""
    return "# Written by `payments-ledger asyncapi`. Do not edit.\n" + "\n".join(_yaml(content())) + "\n"


def content() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, with the exchanges' default names."""
    fields = Settings.model_fields
    exchanges = {
        "orders": fields["orders_exchange"].default,
        "payments": PAYMENTS_EXCHANGE,
        "tenants": fields["tenants_exchange"].default,
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Payments Ledger",
            "version": VERSION,
            "description": (
                "At least once, in order within a payment, transaction or account; "
                "repeat deliveries have the same message_id. "
                "Names are also understood in camelCase, and unknown ones are ignored. "
                f"An order without a currency is in {CURRENCY_DEFAULT}."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            **{_name(key): _channel(PAYMENTS_EXCHANGE, key) for key in SENT},
            **{_name(key): _channel(exchanges[source], key) for source, key in _understood_keys()},
        },
        "operations": {
            **{f"send_{_name(key)}": _operation("send", key) for key in SENT},
            **{f"receive_{_name(key)}": _operation("receive", key) for _, key in _understood_keys()},
        },
        "components": {
            "messages": {
                **{_name(key): _message(key, *described, headers=_SENT_HEADERS) for key, described in SENT.items()},
                **{_name(key): _message(key, *UNDERSTOOD[source][key]) for source, key in _understood_keys()},
            },
            "schemas": _schemas(),
        },
    }


def _understood_keys() -> Iterator[tuple[str, str]]:
    return ((source, key) for source, messages in UNDERSTOOD.items() for key in messages)


def _name(key: str) -> str:
    return key.replace(".", "_")


def _channel(exchange: str, key: str) -> dict[str, Any]:
    return {
        "address": key,
        "messages": {_name(key): {"$ref": f"#/components/messages/{_name(key)}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operation(action: str, key: str) -> dict[str, Any]:
    channel = f"#/channels/{_name(key)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_name(key)}"}],
    }


def _message(
    key: str, body: type[BaseModel], example: Mapping[str, Any], headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "name": key,
        "title": key,
        **({"headers": dict(headers)} if headers else {}),
        "payload": {"$ref": f"#/components/schemas/{body.__name__}"},
        "examples": [{"payload": dict(example)}],
    }


def _schemas() -> dict[str, Any]:
    bodies = [body for body, _ in SENT.values()]
    bodies += [body for messages in UNDERSTOOD.values() for body, _ in messages.values()]
    schemas: dict[str, Any] = {}
    for body in dict.fromkeys(bodies):
        schema = body.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {body.__name__: schema}
    return schemas


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Block style down to the leaves, which are written as JSON: YAML 1.2 contains it."""
    for name, member in value.items():
        key = name if name.replace("_", "").isalnum() else json.dumps(name)
        if isinstance(member, dict) and member:
            yield f"{indent}{key}:"
            yield from _yaml(member, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(member, ensure_ascii=False)}"
