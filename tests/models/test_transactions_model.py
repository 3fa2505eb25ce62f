"""The ledger's transactions against a model that sums everything up anew: every outcome and balance compared.

A failure prints the shortest sequence that leads to it. The same examples each time; other and more ones with
`--hypothesis-profile=long`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from payments_ledger.commit.group_commit import GroupCommit
from payments_ledger.demo.seed import add_tenant
from payments_ledger.errors import Rejected
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.accounts import Account, AccountType, Limit
from payments_ledger.ledger.balances.queries import list_running_balances
from payments_ledger.ledger.chart.use_cases import CreateAccount, change_chart
from payments_ledger.ledger.entry import Posting
from payments_ledger.ledger.transactions.transaction import NewTransaction, Transaction
from payments_ledger.ledger.transactions.use_cases import (
    AtomicRefusal,
    BookCommand,
    PostHold,
    Recorded,
    RecordTransactions,
    ReverseTransaction,
    VoidHold,
    change_book,
)
from payments_ledger.money import Money
from payments_ledger.verify.audit import examine
from tests.integration.books import ORIGIN
from tests.models.transactions import LIMITS, Move, Outcome, TransactionsModel
from tests.models.world import World, migrated_world
from tests.profiles import examples
from tests.services import PostgresServer


@pytest.fixture(scope="module")
def world(postgres: PostgresServer) -> Iterator[World]:
    with migrated_world(postgres.create_database("transactions_model")) as world:
        yield world


@dataclass(frozen=True)
class Step:
    """One command of the model; `picked` is a transaction by the order of their making."""

    kind: str
    moves: tuple[Move, ...] = ()
    pending: bool = False
    reference: str | None = None
    picked: int = 0
    amounts: tuple[int, ...] = ()


accounts = st.permutations(list(LIMITS)).map(lambda drawn: (drawn[0], drawn[1]))
moves = st.tuples(accounts, st.integers(1, 30)).map(lambda drawn: (*drawn[0], drawn[1]))
recordings = st.builds(
    Step,
    st.just("record"),
    st.lists(moves, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.none() | st.none() | st.sampled_from(("r-1", "r-2")),
)
endings = st.builds(
    Step,
    st.sampled_from(("post", "post", "part", "void", "reverse")),
    picked=st.integers(0, 9),
    amounts=st.tuples(*[st.integers(1, 30)] * 3),
)
steps = st.lists(recordings | recordings | endings, min_size=1, max_size=5)


class TransactionsMachine(RuleBasedStateMachine):
    """A tenant with four accounts, three of them limited, and whatever comes to be done with them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.run = world.runner.run
        self.tenant = f"t-{uuid4()}"
        self.model = TransactionsModel()
        self.run(self._begin())

    @rule(batch=steps)
    def one_batch(self, batch: list[Step]) -> None:
        """In one transaction of the database: each command sees what those before it left."""
        named = self._named(batch)
        outcomes = self.run(self._batch([command for command, _ in named]))
        assert outcomes == [self._expected(self.model, step) for step in named]

    @rule(batch=st.lists(recordings, min_size=1, max_size=4))
    def an_atomic_batch(self, batch: list[Step]) -> None:
        """All or none: the model forgets what was done when one is refused."""
        named = self._named(batch)
        items = tuple(item for command, _ in named for item in command.transactions)
        [outcome] = self.run(self._change([RecordTransactions(self.tenant, items, ORIGIN, is_atomic=True)]))
        model = self.model.copy()
        expected = [self._expected(model, step) for step in named]
        refused = next((place for place, (verdict, _) in enumerate(expected) if verdict == "refused"), None)
        if refused is None:
            assert isinstance(outcome, Recorded)
            self.model = model
        else:
            assert isinstance(outcome, AtomicRefusal)
            assert (outcome.index, type(outcome.error).__name__) == (refused, expected[refused][1])

    @rule(first=steps.map(lambda drawn: drawn[:2]), second=steps.map(lambda drawn: drawn[:2]))
    def two_processes_at_once(self, first: list[Step], second: list[Step]) -> None:
        """Through the group commits of two processes: as if the commands had come one by one, in some order."""
        named = self._named([*first, *second])
        outcomes = self.run(self._submit([command for command, _ in named], len(first)))
        found = self.run(self._balances())
        for order in permutations(range(len(named))):
            model = self.model.copy()
            expected = {place: self._expected(model, named[place]) for place in order}
            if [expected[place] for place in range(len(named))] == outcomes and self._shown(model) == found:
                self.model = model
                return
        raise AssertionError(f"No order of {named} explains {outcomes} and {found}.")

    @invariant()
    def the_balances_are_those_of_the_model(self) -> None:
        assert self.run(self._balances()) == self._shown(self.model)

    def teardown(self) -> None:
        for result in self.run(self._audit()):
            assert result.ok, result

    def _named(self, batch: Sequence[Step]) -> list[tuple[Any, tuple[Step, str, str]]]:
        """Each step as a command, and with the names of what it picks and makes."""
        known = list(self.model.transactions)
        named = []
        for step in batch:
            picked = known[step.picked % len(known)] if known else str(UUID(int=7))
            made = str(uuid7())
            named.append((self._command(step, picked, made), (step, picked, made)))
        return named

    def _command(self, step: Step, picked: str, made: str) -> BookCommand:
        match step.kind:
            case "record":
                postings = tuple(Posting(debit, credit, Money(amount, "BRL")) for debit, credit, amount in step.moves)
                item = NewTransaction(UUID(made), postings, is_pending=step.pending, reference=step.reference)
                return RecordTransactions(self.tenant, (item,), ORIGIN)
            case "post":
                return PostHold(self.tenant, UUID(picked), ORIGIN)
            case "part":
                return PostHold(self.tenant, UUID(picked), ORIGIN, self._amounts(step, picked, "{:d}.{:02d}"))
            case "void":
                return VoidHold(self.tenant, UUID(picked), ORIGIN)
        return ReverseTransaction(self.tenant, UUID(picked), UUID(made), "original", None, ORIGIN)

    def _amounts(self, step: Step, picked: str, form: str) -> tuple[str, ...]:
        hold = self.model.transactions.get(picked)
        return tuple(form.format(*divmod(amount, 100)) for amount in step.amounts[: len(hold.moves) if hold else 1])

    def _expected(self, model: TransactionsModel, named: Any) -> Outcome:
        step, picked, made = named[1] if isinstance(named[1], tuple) else named
        match step.kind:
            case "record":
                return model.record(made, step.moves, pending=step.pending, reference=step.reference)
            case "post":
                return model.post(picked, None)
            case "part":
                hold = self.model.transactions.get(picked)
                return model.post(picked, step.amounts[: len(hold.moves) if hold else 1])
            case "void":
                return model.void(picked)
        return model.reverse(picked, made)

    def _shown(self, model: TransactionsModel) -> dict[str, tuple[int, int, int]]:
        shown = {account: model.balance(account) for account in LIMITS}
        return {account: balance for account, balance in shown.items() if any(balance)}

    async def _begin(self) -> None:
        async with self.world.owner.transaction([self.tenant]) as conn:
            await add_tenant(conn, self.tenant, "A tenant of one sequence")
        commands = []
        for code, (side, least, most) in LIMITS.items():
            type_ = AccountType.ASSET if side == "debit" else AccountType.LIABILITY
            limits = () if least is None else (Limit("BRL", least, most),)
            commands.append(CreateAccount(self.tenant, Account(code, code, type_, id=uuid7(), limits=limits), ORIGIN))
        async with self.world.runtime.transaction([self.tenant]) as conn:
            assert not any(isinstance(outcome, Rejected) for outcome in await change_chart(conn, commands))

    async def _change(self, commands: Sequence[BookCommand]) -> list[Any]:
        async with self.world.runtime.transaction([self.tenant]) as conn:
            return list(await change_book(conn, commands))

    async def _batch(self, commands: Sequence[BookCommand]) -> list[Outcome]:
        return [seen(outcome) for outcome in await self._change(commands)]

    async def _submit(self, commands: Sequence[BookCommand], first: int) -> list[Outcome]:
        processes = [GroupCommit(self.world.runtime.transaction) for _ in range(2)]
        outcomes = await asyncio.gather(
            *(processes[place < first].submit(change_book, command) for place, command in enumerate(commands))
        )
        return [seen(outcome) for outcome in outcomes]

    async def _balances(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        async with self.world.runtime.transaction([self.tenant]) as conn:
            for account in LIMITS:
                for balance in await list_running_balances(conn, self.tenant, account):
                    found[account] = balance.posted, balance.available, balance.highest
        return {account: balance for account, balance in found.items() if any(balance)}

    async def _audit(self) -> list[Any]:
        parameters = {"tenant_id": self.tenant, **BOUNDS, "events_since": None, "audit_since": None}
        async with self.world.auditor.transaction() as conn:
            return [
                await examine(conn, each, "tenant_id = %(tenant_id)s", parameters)
                for each in INVARIANTS
                if each.subject.is_of_tenants
            ]


def seen(outcome: Any) -> Outcome:
    if isinstance(outcome, Recorded):
        [outcome] = outcome.outcomes
    if isinstance(outcome, Rejected):
        return "refused", type(outcome.error).__name__
    assert isinstance(outcome, Transaction)
    return "done", outcome.status.value


def test_the_ledger_does_what_the_model_does(world: World) -> None:
    class Machine(TransactionsMachine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(Machine, settings=examples(25, stateful_step_count=15))
