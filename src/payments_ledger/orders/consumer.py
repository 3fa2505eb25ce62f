"""The messages of the orders service on their way to the use cases, and what becomes of those that are refused."""

from collections.abc import Iterable
from typing import NoReturn

import structlog
from prometheus_client import Counter

from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.errors import Rejected, TenantSuspended, UnknownTenant
from payments_ledger.messaging.messages import DeadLetter, Handler, Later, Message
from payments_ledger.orders.order import (
    ORDER_CANCELLED,
    PAYMENT_CHARGE_REQUESTED,
    NotAnOrder,
    OrderConfirmed,
    OrderMessage,
    read_order,
)
from payments_ledger.orders.order import OrderCancelled as OrderCancelledMessage
from payments_ledger.orders.use_cases import Cancelled, CancelOrder, NothingToPay, PayOrder, change_orders
from payments_ledger.telemetry.tracing import begin_trace, is_correlation_id

log = structlog.get_logger(__name__)

ORDERS = Counter("ledger_orders_total", "Messages about orders by outcome", ["outcome"])
AMOUNT_CONFLICTS = Counter(
    "ledger_order_amount_conflicts_total", "Orders confirmed again with another amount; the first one stands"
)

PRINCIPAL = "orders"


class OrderMessages:
    """Handles order.confirmed, payment.charge_requested and order.cancelled by submitting them to the group commit."""

    def __init__(self, commands: GroupCommit) -> None:
        self._commands = commands

    def handlers(self, confirming_keys: Iterable[str]) -> dict[str, Handler]:
        """`confirming_keys` are the routing keys under which the orders service confirms an order."""
        return {
            **dict.fromkeys(confirming_keys, self.confirm),
            PAYMENT_CHARGE_REQUESTED: self.confirm,
            ORDER_CANCELLED: self.cancel,
        }

    async def confirm(self, message: Message) -> None:
        """Has the order paid. Raises DeadLetter, Later or Unavailable."""
        order, origin = _read(OrderConfirmed, message)
        try:
            money = order.money()
        except NotAnOrder as error:
            raise DeadLetter(str(error)) from None
        outcome = await self._commands.submit(change_orders, PayOrder(order.tenant_id, order.order_id, money, origin))
        if isinstance(outcome, NothingToPay):
            _report(NothingToPay.NOTED.value, order)
        elif isinstance(outcome, Cancelled):
            _report("not paid, it was cancelled", order)
        elif isinstance(outcome, Rejected):
            _raise_refusal(outcome, order)
        elif outcome.payment.money != money:
            AMOUNT_CONFLICTS.inc()
            log.error(
                "order confirmed again with another amount",
                tenant_id=order.tenant_id,
                order_id=order.order_id,
                payment_intent_id=str(outcome.payment.id),
                kept=str(outcome.payment.money),
                ignored=str(money or "nothing to pay"),
            )
        else:
            ORDERS.labels("paid" if outcome.is_new else "repeated").inc()

    async def cancel(self, message: Message) -> None:
        """Has the order cancelled. Raises DeadLetter, Later or Unavailable."""
        order, origin = _read(OrderCancelledMessage, message)
        outcome = await self._commands.submit(change_orders, CancelOrder(order.tenant_id, order.order_id, origin))
        if isinstance(outcome, Rejected):
            _raise_refusal(outcome, order)
        else:
            assert isinstance(outcome, Cancelled)
            _report(f"cancelled, {outcome.value}", order)


def _read[M: OrderMessage](kind: type[M], message: Message) -> tuple[M, Origin]:
    """The order and its origin; the body's correlation id becomes the current one. Raises DeadLetter."""
    try:
        order = read_order(kind, message.body)
    except NotAnOrder as error:
        raise DeadLetter(str(error)) from None
    tenant_id = message.headers.get("X-Tenant-Id", order.tenant_id)
    if tenant_id != order.tenant_id:
        raise DeadLetter("X-Tenant-Id names another tenant than the body")
    correlation_id = order.correlation_id
    if not is_correlation_id(correlation_id):
        correlation_id = message.headers.get("X-Correlation-Id")
    trace = begin_trace(correlation_id, message.headers.get("traceparent"))
    return order, Origin(PRINCIPAL, None, trace)


def _raise_refusal(outcome: Rejected, order: OrderMessage) -> NoReturn:
    if isinstance(outcome.error, UnknownTenant):
        # It may not have been synchronized yet.
        raise Later(f"unknown tenant {order.tenant_id}")
    if isinstance(outcome.error, TenantSuspended):
        # It may be resumed.
        raise Later(f"tenant {order.tenant_id} is suspended")
    raise DeadLetter(outcome.error.detail)


def _report(outcome: str, order: OrderMessage) -> None:
    ORDERS.labels(outcome).inc()
    log.info("order handled", outcome=outcome, tenant_id=order.tenant_id, order_id=order.order_id)
