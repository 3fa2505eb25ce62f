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
    """Amounts in minor units; `captured` is what is to be settled of a manual payment, None before that."""

    amount: int
    currency: str
    manual: bool = False
    expired: bool = False
    status: str = "CREATED"
    version: int = 1
    captured: int | None = None
    refunded: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    def shown(self) -> Outcome:
        words = tuple(sorted(self.metadata.items()))
        return ("payment", self.status, self.version, self.amount, self.currency, self.captured, self.refunded, words)

    @property
    def settled(self) -> int:
        if self.status != "SETTLED":
            return 0
        return self.amount if self.captured is None else self.captured

    @property
    def is_over(self) -> bool:
        """Whether its time has run out before it was confirmed, or as a manual one captured."""
        waits = self.status == "CREATED" or (self.status == "AUTHORIZED" and self.manual and self.captured is None)
        return self.expired and (waits or self.status == "CANCELLED")


@dataclass
class ModelOrder:
    cancelled: bool = False
    paid: bool = False


@dataclass
class Model:
    """Payments and orders by tenant and name; the payment of an order has the order's name."""

    payments: dict[Key, ModelPayment] = field(default_factory=dict)
    orders: dict[Key, ModelOrder] = field(default_factory=dict)
    references: set[Key] = field(default_factory=set)

    def copy(self) -> "Model":
        return Model(
            {key: replace(payment, metadata=dict(payment.metadata)) for key, payment in self.payments.items()},
            {key: replace(order) for key, order in self.orders.items()},
            set(self.references),
        )

    def create(self, key: Key, amount: int, currency: str, manual: bool = False, expired: bool = False) -> Outcome:
        self.payments[key] = ModelPayment(amount, currency, manual, expired)
        return self.payments[key].shown()

    def confirm(self, key: Key) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.is_over:
            return ("refused", "PaymentExpired")
        return self._move(payment, "AUTHORIZED", {"CREATED"})

    def capture(self, key: Key, amount: int | None = None) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.captured is not None:
            return ("refused", "AlreadyCaptured")
        if payment.is_over:
            return ("refused", "PaymentExpired")
        if not payment.manual or payment.status != "AUTHORIZED":
            return ("refused", "NotCapturable")
        payment.captured = payment.amount if amount is None else amount
        payment.version += 1
        return payment.shown()

    def settle(self, key: Key) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.status == "AUTHORIZED" and payment.manual and payment.captured is None:
            return ("refused", "IllegalMove")
        return self._move(payment, "SETTLED", {"AUTHORIZED"})

    def end(self, key: Key, to: str) -> Outcome:
        """Cancels or fails it."""
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.status == "AUTHORIZED" and payment.captured is not None:
            return ("refused", "AlreadyCaptured")
        if payment.is_over:
            return ("refused", "PaymentExpired")
        if payment.status == to:
            return ("refused", "IllegalMove")
        return self._move(payment, to, {"CREATED", "AUTHORIZED"})

    def expire(self, key: Key) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if not payment.is_over or payment.status == "CANCELLED":
            return ("refused", "IllegalMove")
        return self._move(payment, "CANCELLED", {"CREATED", "AUTHORIZED"})

    def refund(self, key: Key, amount: int | None = None, reference: str | None = None) -> Outcome:
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if payment.status != "SETTLED":
            return ("refused", "NotRefundable")
        if reference and (key[0], reference) in self.references:
            return ("refused", "ReferenceTaken")
        left = payment.settled - payment.refunded
        given_back = left if amount is None else amount
        if not 0 < given_back <= left:
            return ("refused", "AmountExceedsRefundable")
        payment.refunded += given_back
        payment.version += 1
        if reference:
            self.references.add((key[0], reference))
        return ("refund", given_back, payment.currency)

    def annotate(self, key: Key, value: str | None) -> Outcome:
        """Sets or removes its one word."""
        payment = self.payments.get(key)
        if payment is None:
            return NOT_FOUND
        if value is None:
            payment.metadata.pop("word", None)
        else:
            payment.metadata["word"] = value
        return payment.shown()

    def _move(self, payment: ModelPayment, to: str, legal_from: set[str]) -> Outcome:
        if payment.status == to:
            return ("refused", "AlreadyMoved")
        if payment.status not in legal_from:
            return ("refused", "IllegalMove")
        payment.status = to
        payment.version += 1
        return payment.shown()

    def pay_order(self, key: Key, amount: int, currency: str) -> Outcome:
        order = self.orders.setdefault(key, ModelOrder())
        if order.cancelled:
            return ("cancelled", "BEFORE")
        is_new = not order.paid
        if is_new:
            order.paid = True
            self.create(key, amount, currency)
            self.confirm(key)
        return ("paid", is_new, self.payments[key].amount, self.payments[key].currency)

    def cancel_order(self, key: Key) -> Outcome:
        order = self.orders.setdefault(key, ModelOrder())
        if order.cancelled:
            return ("cancelled", "BEFORE")
        order.cancelled = True
        if key not in self.payments:
            return ("cancelled", "NO_PAYMENT")
        if self.end(key, "CANCELLED")[0] == "payment":
            return ("cancelled", "PAYMENT_CANCELLED")
        if self.refund(key)[0] == "refund":
            return ("cancelled", "PAYMENT_REFUNDED")
        return ("cancelled", "NOTHING_LEFT")

    def totals(self) -> Counter[tuple[str, str, str, str]]:
        """Minor units by tenant, account, currency and side."""
        totals: Counter[tuple[str, str, str, str]] = Counter()
        for (tenant, _), payment in self.payments.items():
            for debit, credit, amount in (("CASH", "REVENUE", payment.settled), ("REVENUE", "CASH", payment.refunded)):
                if amount:
                    totals[tenant, debit, payment.currency, "debit"] += amount
                    totals[tenant, credit, payment.currency, "credit"] += amount
        return totals
