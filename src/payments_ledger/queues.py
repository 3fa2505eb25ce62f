"""Who reads which events: the queues that this engine consumes, and the events that must reach a queue of anybody.

One file for all modules, because an operator, the worker and the reference documents look at them together.
"""

from payments_ledger.delivery.queries import DueEvent
from payments_ledger.messaging.subscription import Queue
from payments_ledger.orders.order import ORDER_CANCELLED, PAYMENT_CHARGE_REQUESTED
from payments_ledger.payments.lifecycle import PAYMENT_AUTHORIZED, PAYMENT_CAPTURE_REQUESTED, PAYMENT_SETTLED
from payments_ledger.process.settings import Settings

PAYMENTS_EXCHANGE = "payments.x"
PAYMENTS_QUEUE = Queue(
    name="payments.events",
    bindings=((PAYMENTS_EXCHANGE, PAYMENT_AUTHORIZED), (PAYMENTS_EXCHANGE, PAYMENT_CAPTURE_REQUESTED)),
    dead_letters="payments.dlq",
)


def orders_queue(settings: Settings) -> Queue:
    """What the orders service publishes, and the charges that are requested on our own exchange."""
    keys = [*confirming_keys(settings), ORDER_CANCELLED]
    return Queue(
        name=settings.orders_queue,
        bindings=(
            *((settings.orders_exchange, key) for key in keys),
            (PAYMENTS_EXCHANGE, PAYMENT_CHARGE_REQUESTED),
        ),
        dead_letters=_dead_letters_of(settings.orders_queue),
    )


def confirming_keys(settings: Settings) -> list[str]:
    """The routing keys under which the orders service confirms an order; those that mean something else are not."""
    keys = dict.fromkeys(_keys(settings.orders_routing_key))
    return [key for key in keys if key not in (ORDER_CANCELLED, PAYMENT_CHARGE_REQUESTED)]


def tenants_queue(settings: Settings) -> Queue:
    """What the service that owns the tenants publishes."""
    bindings = tuple((settings.tenants_exchange, key) for key in _keys(settings.tenants_routing_keys))
    return Queue(settings.tenants_queue, bindings, _dead_letters_of(settings.tenants_queue))


def consumed_queues(settings: Settings) -> list[Queue]:
    """The queues that a worker with these settings consumes."""
    queues = [PAYMENTS_QUEUE]
    if settings.orders_integration_enabled:
        queues.append(orders_queue(settings))
    if settings.tenants_sync_enabled:
        queues.append(tenants_queue(settings))
    return queues


def must_reach_a_queue(settings: Settings, event: DueEvent) -> bool:
    """Whether somebody is known to need the event: ourselves, or the orders service for its orders."""
    if event.event_type == PAYMENT_SETTLED:
        return settings.orders_integration_enabled and event.order_id is not None
    return event.event_type in (PAYMENT_AUTHORIZED, PAYMENT_CAPTURE_REQUESTED)


def _keys(routing_keys: str) -> list[str]:
    return [key.strip() for key in routing_keys.split(",") if key.strip()]


def _dead_letters_of(queue_name: str) -> str:
    """As in payments.orders.events → payments.orders.dlq."""
    return f"{queue_name.removesuffix('.events')}.dlq"
