"""Every invariant of this program, as each module declares its own; `verify` and the worker audit the books by them."""

import payments_ledger.delivery.invariants as delivery
import payments_ledger.feed.invariants as feed
import payments_ledger.ledger.invariants as ledger
import payments_ledger.ledger.reports.invariants as reports
import payments_ledger.ledger.transactions.invariants as transactions
import payments_ledger.orders.invariants as orders
import payments_ledger.payments.invariants as payments
import payments_ledger.payments.response_invariants as payment_responses
import payments_ledger.refunds.invariants as refunds
from payments_ledger.ledger.entry import TRANSACTION_KINDS
from payments_ledger.payments.postings import SETTLEMENT
from payments_ledger.refunds.postings import REFUND

INVARIANTS = (
    *ledger.INVARIANTS,
    ledger.entries_have_a_declared_kind((SETTLEMENT, REFUND, *TRANSACTION_KINDS)),
    *transactions.INVARIANTS,
    *reports.INVARIANTS,
    *payments.INVARIANTS,
    *payment_responses.INVARIANTS,
    *refunds.INVARIANTS,
    *orders.INVARIANTS,
    *delivery.INVARIANTS,
    *feed.INVARIANTS,
)
# The parameters that they name, in seconds; whoever audits may set others.
BOUNDS = {"authorized_seconds_max": payments.AUTHORIZED_SECONDS_MAX}
