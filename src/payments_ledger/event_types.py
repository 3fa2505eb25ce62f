"""Every type of event that this program publishes, as each module declares its own: what a pattern can mean."""

from payments_ledger.ledger.chart import events as accounts
from payments_ledger.ledger.transactions import events as transactions
from payments_ledger.payments.lifecycle import FACTS, MOVES

EVENT_TYPES = frozenset(
    {
        *(move.event for move in MOVES),
        *(fact.event for fact in FACTS),
        accounts.CREATED,
        accounts.CLOSED,
        accounts.REOPENED,
        *transactions.TYPE_BY_STATUS.values(),
        transactions.REVERSED,
    }
)
