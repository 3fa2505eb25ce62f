"""Transactions in plain Python, small enough to be seen to be right: what the ledger is compared with.

It keeps no balance: each is summed up anew from all transactions there are, whenever it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

type Outcome = tuple[str, str]
"""What became of a command: a status, or the refusal's class."""

type Move = tuple[str, str, int]
"""Debited account, credited account, amount."""

# On which side an account's balance is positive, and its limits.
LIMITS: dict[str, tuple[str, int | None, int | None]] = {
    "A": ("credit", 0, None),
    "B": ("credit", 0, 50),
    "C": ("debit", -20, 40),
    "BANK": ("debit", None, None),
}


@dataclass(frozen=True)
class ModelTransaction:
    """What it moves, or holds until it is posted or voided; `begun` is what it began with."""

    moves: tuple[Move, ...]
    begun: tuple[Move, ...]
    status: str
    reference: str | None = None
    reverses: str | None = None


@dataclass
class TransactionsModel:
    """Transactions by name."""

    transactions: dict[str, ModelTransaction] = field(default_factory=dict)

    def copy(self) -> "TransactionsModel":
        return TransactionsModel(dict(self.transactions))

    def record(self, name: str, moves: Sequence[Move], *, pending: bool, reference: str | None) -> Outcome:
        if reference and any(known.reference == reference for known in self.transactions.values()):
            return "refused", "ReferenceTaken"
        status = "PENDING" if pending else "POSTED"
        return self._try(name, ModelTransaction(tuple(moves), tuple(moves), status, reference))

    def post(self, name: str, amounts: Sequence[int] | None) -> Outcome:
        hold = self.transactions.get(name)
        if hold is None:
            return "refused", "TransactionNotFound"
        if amounts is not None and any(amount > held for amount, (_, _, held) in zip(amounts, hold.begun, strict=True)):
            return "refused", "InvalidRequest"
        if hold.status != "PENDING":
            return "refused", "NotPending"
        moves = hold.moves
        if amounts is not None:
            moves = tuple((debit, credit, amount) for (debit, credit, _), amount in zip(moves, amounts, strict=True))
        return self._try(name, replace(hold, moves=moves, status="POSTED"))

    def void(self, name: str) -> Outcome:
        hold = self.transactions.get(name)
        if hold is None:
            return "refused", "TransactionNotFound"
        if hold.status != "PENDING":
            return "refused", "NotPending"
        self.transactions[name] = replace(hold, status="VOIDED")
        return "done", "VOIDED"

    def reverse(self, name: str, reversal: str) -> Outcome:
        first = self.transactions.get(name)
        if first is None:
            return "refused", "TransactionNotFound"
        if first.status != "POSTED":
            return "refused", "NotPosted"
        if any(known.reverses == name for known in self.transactions.values()):
            return "refused", "AlreadyReversed"
        mirrored = tuple((credit, debit, amount) for debit, credit, amount in first.moves)
        return self._try(reversal, ModelTransaction(mirrored, mirrored, "POSTED", reverses=name))

    def balance(self, account: str) -> tuple[int, int, int]:
        """What is posted, available, and at most to come, on the normal side."""
        side, _, _ = LIMITS[account]
        posted = against = to_come = 0
        for transaction in self.transactions.values():
            net = sum(
                amount * ((debit == account) - (credit == account)) for debit, credit, amount in transaction.moves
            )
            net = net if side == "debit" else -net
            if transaction.status == "POSTED":
                posted += net
            elif transaction.status == "PENDING":
                against += max(-net, 0)
                to_come += max(net, 0)
        return posted, posted - against, posted + to_come

    def _try(self, name: str, transaction: ModelTransaction) -> Outcome:
        """Makes it so, unless some account then is outside of its limits."""
        before = self.transactions.get(name)
        self.transactions[name] = transaction
        refusal = self._broken({account for move in transaction.moves for account in move[:2]})
        if refusal is None:
            return "done", transaction.status
        if before is None:
            del self.transactions[name]
        else:
            self.transactions[name] = before
        return "refused", refusal

    def _broken(self, accounts: set[str]) -> str | None:
        balances = {account: (self.balance(account), LIMITS[account]) for account in accounts}
        if any(least is not None and available < least for (_, available, _), (_, least, _) in balances.values()):
            return "InsufficientFunds"
        if any(most is not None and highest > most for (_, _, highest), (_, _, most) in balances.values()):
            return "LimitExceeded"
        return None
