"""Lines, which name one account each, paired into postings, which debit one account and credit another; and back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from payments_ledger.errors import Fault, InvalidRequest, Unbalanced
from payments_ledger.ledger.accounts import Side
from payments_ledger.ledger.entry import Posting
from payments_ledger.money import Money, format_amount


@dataclass(frozen=True, slots=True)
class Line:
    """One side of a transaction: `amount` minor units."""

    account: str
    side: Side
    amount: int
    currency: str


def pair(lines: Sequence[Line]) -> tuple[Posting, ...]:
    """Postings that move what the lines say, always the same ones.

    Currency by currency, in the order in which they first occur: the first debit that is not used up is paired with the
    first credit that is not, over the smaller of the two amounts. Raises Unbalanced with the difference where the sides
    of a currency differ, and InvalidRequest where an account stands on both sides of one.
    """
    _require_one_side(lines)
    postings: list[Posting] = []
    for currency in dict.fromkeys(line.currency for line in lines):
        sides: dict[Side, list[Line]] = {Side.DEBIT: [], Side.CREDIT: []}
        for line in lines:
            if line.currency == currency:
                sides[line.side].append(line)
        _require_balance(currency, sides[Side.DEBIT], sides[Side.CREDIT])
        postings += _paired(currency, sides[Side.DEBIT], sides[Side.CREDIT])
    return tuple(postings)


def as_lines(postings: Iterable[Posting]) -> list[Line]:
    """One line for each account, side and currency, in the order in which they first occur, debit before credit."""
    sums: dict[tuple[str, Side, str], int] = {}
    for posting in postings:
        for account, side in ((posting.debit_account, Side.DEBIT), (posting.credit_account, Side.CREDIT)):
            key = account, side, posting.money.currency
            sums[key] = sums.get(key, 0) + posting.money.amount
    return [Line(account, side, amount, currency) for (account, side, currency), amount in sums.items()]


def _require_one_side(lines: Sequence[Line]) -> None:
    first_side: dict[tuple[str, str], Side] = {}
    for place, line in enumerate(lines):
        if first_side.setdefault((line.account, line.currency), line.side) is not line.side:
            # A posting needs two accounts, so the pairing would depend on what stands beside it.
            detail = f"{line.account} is on both sides in {line.currency}: give the difference"
            raise InvalidRequest([Fault(detail, ("lines", place, "account"))])


def _require_balance(currency: str, debited: Sequence[Line], credited: Sequence[Line]) -> None:
    difference = sum(line.amount for line in debited) - sum(line.amount for line in credited)
    if difference:
        greater, lesser = ("debits", "credits") if difference > 0 else ("credits", "debits")
        amount = format_amount(abs(difference), currency)
        raise Unbalanced(f"In {currency} the {greater} exceed the {lesser} by {amount}.")


def _paired(currency: str, debited: Sequence[Line], credited: Sequence[Line]) -> Iterable[Posting]:
    """Of sides with the same sum."""
    rest = iter(credited)
    credit, left = None, 0
    for debit in debited:
        wanted = debit.amount
        while wanted:
            if not left:
                credit = next(rest)
                left = credit.amount
            assert credit is not None
            amount = min(wanted, left)
            yield Posting(debit.account, credit.account, Money(amount, currency))
            wanted, left = wanted - amount, left - amount
