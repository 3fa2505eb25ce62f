"""A ledger of payments in plain Python, small enough to be seen to be right: what the engine is compared with.

It knows nothing of databases, batches, events or time: one command after another, each with its outcome.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

type Outcome = tuple[Hashable, ...]
"""What a command answers, with all that does not matter left out: ids and times."""

type Key = tuple[str, str]
"""The tenant and the name of a payment or an order."""

NOT_FOUND: Outcome = ("refused", "PaymentNotFound")


@dataclass
class ModelPayment:
    amount: int
    currency: str
    status: str = "CREATED"
    version: int = 1
    refunded: bool = False

    def shown(self) -> Outcome:
        return ("payment", self.status, self.version, self.amount, self.currency)


MOVES = {
    ("CREATED", "AUTHORIZED"),
    ("CREATED", "CANCELLED"),
    ("AUTHORIZED", "SETTLED"),
    ("AUTHORIZED", "CANCELLED"),
}


@dataclass
class ModelOrder:
    cancelled: bool = False
    paid: bool = False


@dataclass
class Model:
    """Payments and orders by tenant and name; the payment of an order has the order's name."""

    payments: dict[Key, ModelPayment] = field(default_factory=dict)
    orders: dict[Key, ModelOrder] = field(default_factory=dict)

    def copy(self) -> "Model":
        return Model(
            {key: replace(payment) for key, payment in self.payments.items()},
            {key: replace(order) for key, order in self.orders.items()},
        )

    def create(self, key: Key, amount: int, currency: str) -> Outcome:
        self.payments[key] = ModelPayment(amount, currency)
        return self.payments[key].shown()

    def move(self, key: Key, to: str) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.status == to:
            return ("refused", "AlreadyMoved")
        if (payment.status, to) not in MOVES:
            return ("refused", "IllegalMove")
        payment.status = to
        payment.version += 1
        return payment.shown()

    def refund(self, key: Key) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.status != "SETTLED":
            return ("refused", "IllegalMove")
        if payment.refunded:
            return ("refused", "AlreadyRefunded")
        payment.refunded = True
        return ("refund", payment.amount, payment.currency)

    def pay_order(self, key: Key, amount: int, currency: str) -> Outcome:
        order = self.orders.setdefault(key, ModelOrder())
        if order.cancelled:
            return ("cancelled", "BEFORE")
        is_new = not order.paid
        if is_new:
            order.paid = True
            self.create(key, amount, currency)
            self.move(key, "AUTHORIZED")
        return ("paid", is_new, self.payments[key].amount, self.payments[key].currency)

    def cancel_order(self, key: Key) -> Outcome:
        order = self.orders.setdefault(key, ModelOrder())
        if order.cancelled:
            return ("cancelled", "BEFORE")
        order.cancelled = True
        if self.move(key, "CANCELLED")[0] == "payment":
            return ("cancelled", "PAYMENT_CANCELLED")
        if self.refund(key)[0] == "refund":
            return ("cancelled", "PAYMENT_REFUNDED")
        return ("cancelled", "NO_PAYMENT")

    def totals(self) -> Counter[tuple[str, str, str, str]]:
        """Minor units by tenant, account, currency and side."""
        totals: Counter[tuple[str, str, str, str]] = Counter()
        for (tenant, _), payment in self.payments.items():
            entries = [("CASH", "REVENUE")] * (payment.status == "SETTLED") + [("REVENUE", "CASH")] * payment.refunded
            for debit, credit in entries:
                totals[tenant, debit, payment.currency, "debit"] += payment.amount
                totals[tenant, credit, payment.currency, "credit"] += payment.amount
        return totals
