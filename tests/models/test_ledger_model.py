"""The engine against a model of twenty lines a rule: made-up sequences of batches, every outcome and balance compared.

A failure prints the shortest sequence that leads to it. The same examples each time; other and more ones with
`--hypothesis-profile=long`.

Long because the model has a rule for each use case.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from payments_ledger.commit.group_commit import GroupCommit, UseCase
from payments_ledger.commit.idempotency import Key as IdempotencyKey
from payments_ledger.commit.idempotency import Keyed, StoredResponse, respond_once
from payments_ledger.demo.seed import add_tenant
from payments_ledger.errors import Rejected
from payments_ledger.invariants import BOUNDS, INVARIANTS
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.queries import insert_accounts, list_balances
from payments_ledger.money import AMOUNT_MAX, Money, format_amount
from payments_ledger.orders.use_cases import Cancelled, CancelOrder, Paid, PayOrder, change_orders
from payments_ledger.payments.payment import CaptureMethod, Failure, Payment, Terms
from payments_ledger.payments.routes import CONFIRM, CREATE, PATH
from payments_ledger.payments.use_cases import (
    AnnotatePayment,
    CancelPayment,
    CapturePayment,
    ConfirmPayment,
    CreatePayments,
    ExpirePayment,
    FailPayment,
    NewPayment,
    SettlePayment,
    annotate_payments,
    cancel_payments,
    capture_payments,
    confirm_payments,
    expire_payments,
    fail_payments,
    settle_payments,
)
from payments_ledger.postgres.database import Connection
from payments_ledger.refunds.refund import Refund
from payments_ledger.refunds.use_cases import RefundPayment, refund_payments
from payments_ledger.verify.audit import examine
from tests.integration.books import ORIGIN, only_payment
from tests.models.model import Key, Model, Outcome
from tests.models.world import World, migrated_world
from tests.profiles import examples
from tests.services import PostgresServer

UNKNOWN = UUID(int=7)


@pytest.fixture(scope="module")
def world(postgres: PostgresServer) -> Iterator[World]:
    with migrated_world(postgres.create_database("model")) as world:
        yield world


# Few of each, so that they meet: payments by the place in which they were made, keys, orders, currencies.
tenants = st.integers(0, 1)
moneys = st.builds(Money, st.integers(1, 10**9) | st.just(AMOUNT_MAX), st.sampled_from(("BRL", "JPY", "KWD")))
keys = st.none() | st.sampled_from(("k-1", "k-2", "k-3"))
picks = st.tuples(st.integers(0, 9), st.sampled_from((False,) * 7 + (True,)))
moves = st.sampled_from(("confirm", "capture", "settle", "cancel", "fail", "expire", "refund", "refund", "annotate"))
# Of a capture or a refund: the whole, or the whole divided by this. Of a refund also its reference.
portions = st.none() | st.integers(1, 4)
references = st.none() | st.sampled_from(("R-1", "R-2"))
terms = st.sampled_from(("automatic", "automatic", "manual", "manual", "expired", "manual, expired"))
# Until the payment has expired that was made to do so.
EXPIRY_SECONDS = 0.02
order_commands = st.tuples(
    st.sampled_from(("pay", "pay", "unpay")), tenants, st.sampled_from(("o-1", "o-2", "o-3")), moneys
)


@dataclass(frozen=True)
class Step:
    """One command of the model, and what it is called in the engine."""

    kind: str
    key: Key
    money: Money | None = None
    amount: int | None = None
    reference: str | None = None

    def expected(self, model: Model) -> Outcome:
        match self.kind:
            case "pay":
                assert self.money
                return model.pay_order(self.key, self.money.amount, self.money.currency)
            case "unpay":
                return model.cancel_order(self.key)
            case "refund":
                return model.refund(self.key, self.amount, self.reference)
            case "capture":
                return model.capture(self.key, self.amount)
            case "cancel":
                return model.end(self.key, "CANCELLED")
            case "fail":
                return model.end(self.key, "FAILED")
            case "annotate":
                return model.annotate(self.key, self.reference)
        outcome: Outcome = getattr(model, self.kind)(self.key)
        return outcome


def in_order(steps: Sequence[Step]) -> list[Step]:
    """As one batch means it: what cancels an order comes before what pays it, whichever was said first."""
    return sorted(steps, key=lambda step: step.kind == "pay")


def apply(model: Model, steps: Sequence[Step]) -> list[Outcome]:
    """The outcomes in the order of the steps."""
    outcomes = {id(step): step.expected(model) for step in in_order(steps)}
    return [outcomes[id(step)] for step in steps]


def seen(outcome: Payment | Refund | Paid | Cancelled | Rejected) -> Outcome:
    match outcome:
        case Payment(status=status, version=version, money=money):
            captured = outcome.captured.amount if outcome.captured else None
            words = tuple(sorted(outcome.metadata.items()))
            refunded = outcome.amount_refunded
            return ("payment", status.value, version, money.amount, money.currency, captured, refunded, words)
        case Refund(money=money):
            return ("refund", money.amount, money.currency)
        case Paid(payment=payment, is_new=is_new):
            return ("paid", is_new, payment.money.amount, payment.money.currency)
        case Cancelled():
            return ("cancelled", outcome.name)
        case Rejected(error=error):
            return ("refused", type(error).__name__)
    raise AssertionError(outcome)


class LedgerMachine(RuleBasedStateMachine):
    """Two tenants, some payments and orders, and whatever comes to be done with them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.run = world.runner.run
        self.tenants = tuple(f"t-{uuid4()}" for _ in range(2))
        self.model = Model()
        self.names: list[Key] = []
        self.ids: dict[Key, UUID] = {}
        self.answers: dict[IdempotencyKey, tuple[Money | None, bytes]] = {}
        self.run(self._add_tenants())

    @rule(batch=st.lists(st.tuples(tenants, moneys, keys, terms), min_size=1, max_size=5))
    def create(self, batch: list[tuple[int, Money, str | None, str]]) -> None:
        requests = [self._creation(self.tenants[tenant], money, key, kind) for tenant, money, key, kind in batch]
        answers = self.run(self._in_one_transaction(respond_once, requests))
        if any("expired" in kind for *_, kind in batch):
            self.run(asyncio.sleep(EXPIRY_SECONDS))
        for request, answer in zip(requests, answers, strict=True):
            wanted = only_payment(request.command)
            money = wanted.money
            first = self.answers.get(request.key) if request.key else None
            if first is None:
                assert isinstance(answer, StoredResponse)
                key = (request.tenant_id, str(wanted.id))
                is_manual = wanted.terms.capture_method is CaptureMethod.MANUAL
                expires = wanted.terms.expires_at is not None
                _, *shown = self.model.create(key, money.amount, money.currency, is_manual, expires)
                self._expect_body(answer, key[1], shown)
                if request.key:
                    self.answers[request.key] = (money, answer.body)
            elif first[0] == money:
                assert isinstance(answer, StoredResponse)
                assert (answer.status, answer.body, answer.replayed) == (201, first[1], True)
            else:
                assert isinstance(answer, Rejected)
                assert type(answer.error).__name__ == "IdempotencyKeyReused"

    @precondition(lambda self: self.names)
    @rule(batch=st.lists(st.tuples(picks, keys), min_size=1, max_size=5))
    def confirm_once(self, batch: list[tuple[tuple[int, bool], str | None]]) -> None:
        picked = [(self._picked(pick), key) for pick, key in batch]
        requests = [self._confirmation(key, idempotency_key) for key, idempotency_key in picked]
        answers = self.run(self._in_one_transaction(respond_once, requests))
        for (key, _), request, answer in zip(picked, requests, answers, strict=True):
            assert isinstance(answer, StoredResponse)
            if request.key and request.key in self.answers:
                assert answer.replayed
                assert answer.body == self.answers[request.key][1]
                continue
            kind, *shown = self.model.confirm(key)
            if kind == "payment":
                self._expect_body(answer, str(self.ids[key]), shown)
            else:
                expected = {
                    "PaymentNotFound": (404, "payment_not_found"),
                    "AlreadyMoved": (409, "already_moved"),
                    "PaymentExpired": (409, "payment_expired"),
                    "IllegalMove": (409, "illegal_move"),
                }
                assert (answer.status, json.loads(answer.body)["code"]) == expected[str(shown[0])]
            if request.key:
                self.answers[request.key] = (None, answer.body)

    @precondition(lambda self: self.names)
    @rule(kind=moves, batch=st.lists(st.tuples(picks, portions, references), min_size=1, max_size=6))
    def move(self, kind: str, batch: list[tuple[tuple[int, bool], int | None, str | None]]) -> None:
        steps = [self._step(kind, self._picked(pick), portion, reference) for pick, portion, reference in batch]
        assert self.run(self._batch(steps)) == apply(self.model, steps)

    @rule(batch=st.lists(order_commands, min_size=1, max_size=6))
    def change_orders(self, batch: list[tuple[str, int, str, Money]]) -> None:
        steps = self._order_steps(batch)
        assert self.run(self._batch(steps)) == apply(self.model, steps)

    @rule(
        kinds=st.tuples(moves, moves),
        portion=portions,
        first=st.permutations(range(4)),
        second=st.permutations(range(4)),
        orders=st.lists(order_commands, max_size=3),
    )
    def two_batches_at_once(
        self,
        kinds: tuple[str, str],
        portion: int | None,
        first: list[int],
        second: list[int],
        orders: list[tuple[str, int, str, Money]],
    ) -> None:
        """On two connections, over the same payments: the one or the other came first, and nothing in between."""
        fresh = self._ready_for(kinds[0])
        batches = [
            [self._step(kind, fresh[number], portion) for number in batch[:3]]
            for kind, batch in zip(kinds, (first, second), strict=True)
        ]
        if orders:
            batches.append(self._order_steps(orders))
        outcomes = self.run(self._gather([self._batch(batch) for batch in batches]))
        self._adopt(permutations(range(len(batches))), batches, outcomes)

    @rule(
        ready_for=moves,
        commands=st.lists(
            st.tuples(st.just("move"), st.tuples(moves, st.integers(0, 1), portions, references))
            | st.tuples(st.just("order"), order_commands),
            min_size=2,
            max_size=5,
        ),
    )
    def requests_at_once(self, ready_for: str, commands: list[tuple[str, Any]]) -> None:
        """Through the group commits of two processes: as if the requests had come one by one, in some order."""
        fresh = self._ready_for(ready_for)
        steps = [
            self._step(drawn[0], fresh[drawn[1]], *drawn[2:]) if what == "move" else self._order_steps([drawn])[0]
            for what, drawn in commands
        ]
        outcomes = self.run(self._submit(steps))
        self._adopt(permutations(range(len(steps))), [[step] for step in steps], [[outcome] for outcome in outcomes])

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        self.run(self._read())
        assert self.found == self._shown(self.model)

    def teardown(self) -> None:
        for result in self.run(self._audit()):
            assert result.ok, result

    def _adopt(self, orders: Iterable[tuple[int, ...]], batches: list[list[Step]], outcomes: list[Any]) -> None:
        """Takes over the model in which the batches, in one of the orders, have these outcomes and leave this state."""
        self.run(self._read())
        for order in orders:
            model = self.model.copy()
            expected = {number: apply(model, batches[number]) for number in order}
            if [expected[number] for number in range(len(batches))] == outcomes and self._shown(model) == self.found:
                self.model = model
                return
        raise AssertionError(f"No order of {batches} explains {outcomes} and {self.found}.")

    def _ready_for(self, kind: str) -> list[Key]:
        """Four new payments, in the status from which the move is legal."""
        before = {"settle": ["confirm"], "capture": ["confirm"], "refund": ["confirm", "settle"]}.get(kind, [])
        agreed = "manual" if kind == "capture" else "automatic"
        requests = [
            self._creation(self.tenants[number % 2], Money(100 + number, "BRL"), None, agreed) for number in range(4)
        ]
        self.run(self._in_one_transaction(respond_once, requests))
        wanted = [only_payment(request.command) for request in requests]
        fresh = [(request.tenant_id, str(new.id)) for request, new in zip(requests, wanted, strict=True)]
        for key, new in zip(fresh, wanted, strict=True):
            self.model.create(key, new.money.amount, new.money.currency, manual=kind == "capture")
            self.ids[key] = new.id
        self.names += fresh
        for earlier in before:
            steps = [Step(earlier, key) for key in fresh]
            assert self.run(self._batch(steps)) == apply(self.model, steps)
        return fresh

    def _picked(self, pick: tuple[int, bool]) -> Key:
        """One of the payments there are, or none of them, or one that is another tenant's."""
        number, of_wrong_tenant = pick
        number %= len(self.names) + 1
        tenant, name = self.names[number] if number < len(self.names) else (self.tenants[0], str(UNKNOWN))
        return (self.tenants[tenant == self.tenants[0]] if of_wrong_tenant else tenant, name)

    def _order_steps(self, batch: Sequence[tuple[str, int, str, Money]]) -> list[Step]:
        return [
            Step(kind, (self.tenants[tenant], order_id), money if kind == "pay" else None)
            for kind, tenant, order_id, money in batch
        ]

    def _step(self, kind: str, key: Key, portion: int | None, reference: str | None = None) -> Step:
        """A part of the payment is the same whatever has happened to it."""
        payment = self.model.payments.get(key)
        whole = payment.amount if payment else 100
        return Step(kind, key, None, max(1, whole // portion) if portion else None, reference)

    def _creation(self, tenant: str, money: Money, key: str | None, kind: str) -> Keyed[CreatePayments, Any]:
        asked_for = str(money).encode()
        method = CaptureMethod.MANUAL if "manual" in kind else CaptureMethod.AUTOMATIC
        expires_at = datetime.now(UTC) + timedelta(seconds=EXPIRY_SECONDS) if "expired" in kind else None
        new = NewPayment(uuid7(), money, "CUST-1", terms=Terms(method, expires_at))
        command = CreatePayments(tenant, (new,), ORIGIN)
        sent_under = IdempotencyKey(tenant, "tester", f"POST {PATH}", key, asked_for, 3600) if key else None
        return CREATE.keyed(command, PATH, sent_under)

    def _confirmation(self, key: Key, idempotency_key: str | None) -> Keyed[ConfirmPayment, Any]:
        command = ConfirmPayment(key[0], self._id(key), ORIGIN)
        route = f"POST {PATH}/{command.payment_id}/confirm"
        sent_under = IdempotencyKey(key[0], "tester", route, idempotency_key, b"", 3600) if idempotency_key else None
        return CONFIRM.keyed(command, f"{PATH}/{command.payment_id}/confirm", sent_under)

    def _id(self, key: Key) -> UUID:
        """Also of what is not the tenant's: the id then is another tenant's payment's."""
        of_anybody = {name: id_ for (_, name), id_ in self.ids.items()}
        return self.ids.get(key) or of_anybody.get(key[1], UNKNOWN)

    def _expect_body(self, answer: StoredResponse, payment_id: str, shown: Sequence[Any]) -> None:
        status, _, amount, currency, *_ = shown
        body = json.loads(answer.body)
        assert not answer.replayed
        assert (body["id"], body["status"], body["amount"]) == (payment_id, status, format_amount(amount, currency))

    def _use_case(self, step: Step) -> tuple[UseCase[Any, Any], Any]:
        tenant, name = step.key
        if step.kind == "pay":
            assert step.money
            return change_orders, PayOrder(tenant, name, step.money, ORIGIN)
        if step.kind == "unpay":
            return change_orders, CancelOrder(tenant, name, ORIGIN)
        payment_id = self._id(step.key)
        amount = self._in_major_units(step)
        command: tuple[UseCase[Any, Any], Any]
        match step.kind:
            case "confirm":
                command = confirm_payments, ConfirmPayment(tenant, payment_id, ORIGIN)
            case "capture":
                command = capture_payments, CapturePayment(tenant, payment_id, amount, ORIGIN)
            case "settle":
                command = settle_payments, SettlePayment(tenant, payment_id, ORIGIN)
            case "cancel":
                command = cancel_payments, CancelPayment(tenant, payment_id, None, ORIGIN)
            case "fail":
                command = fail_payments, FailPayment(tenant, payment_id, Failure("declined"), ORIGIN)
            case "expire":
                command = expire_payments, ExpirePayment(tenant, payment_id, ORIGIN)
            case "annotate":
                word = {"word": step.reference}
                command = annotate_payments, AnnotatePayment(tenant, payment_id, None, word, ORIGIN)
            case _:
                command = refund_payments, RefundPayment(tenant, payment_id, amount, ORIGIN, reference=step.reference)
        return command

    def _in_major_units(self, step: Step) -> Decimal | None:
        payment = self.model.payments.get(step.key)
        if step.amount is None:
            return None
        return Decimal(format_amount(step.amount, payment.currency)) if payment else Decimal(1)

    async def _add_tenants(self) -> None:
        async with self.world.owner.transaction(self.tenants) as conn:
            for tenant in self.tenants:
                await add_tenant(conn, tenant, "A tenant of one sequence")
                await insert_accounts(conn, tenant, DEFAULT_ACCOUNTS)

    async def _in_one_transaction(self, use_case: UseCase[Any, Any], commands: Sequence[Any]) -> Sequence[Any]:
        async with self.world.runtime.transaction(self.tenants) as conn:
            return await use_case(conn, commands)

    async def _batch(self, steps: Sequence[Step]) -> list[Outcome]:
        use_case, _ = self._use_case(steps[0])
        commands = [self._use_case(step)[1] for step in steps]
        return [seen(outcome) for outcome in await self._in_one_transaction(use_case, commands)]

    async def _gather(self, work: Sequence[Any]) -> list[Any]:
        return await asyncio.gather(*work)

    async def _submit(self, steps: Sequence[Step]) -> list[Outcome]:
        processes = [GroupCommit(self.world.runtime.transaction) for _ in range(2)]
        outcomes = await asyncio.gather(
            *(processes[number % 2].submit(*self._use_case(step)) for number, step in enumerate(steps))
        )
        return [seen(outcome) for outcome in outcomes]

    async def _read(self) -> None:
        """What the database holds: the payments' ids and states, and the balances as the route reads them."""
        payments: dict[Key, Outcome] = {}
        totals: Counter[tuple[str, str, str, str]] = Counter()
        async with self.world.runtime.transaction(self.tenants) as conn:
            for tenant, name, payment_id, *shown, metadata in await _payments(conn):
                if (tenant, name) not in self.ids:
                    self.ids[tenant, name] = payment_id
                    self.names.append((tenant, name))
                payments[tenant, name] = (*shown, tuple(sorted(metadata.items())))
            for tenant in self.tenants:
                for balance in await list_balances(conn, tenant, Period()):
                    totals[tenant, balance.account, balance.currency, "debit"] += balance.debits_total
                    totals[tenant, balance.account, balance.currency, "credit"] += balance.credits_total
        self.found = payments, totals

    def _shown(self, model: Model) -> tuple[dict[Key, Outcome], Counter[tuple[str, str, str, str]]]:
        payments: dict[Key, Outcome] = {key: payment.shown()[1:] for key, payment in model.payments.items()}
        return payments, model.totals()

    async def _audit(self) -> list[Any]:
        parameters = {
            "tenants": list(self.tenants),
            **BOUNDS,
            "events_since": None,
            "audit_since": None,
        }
        async with self.world.auditor.transaction() as conn:
            return [
                await examine(
                    conn,
                    invariant,
                    "tenant_id = ANY (%(tenants)s)" if invariant.subject.is_of_tenants else "true",
                    parameters,
                )
                for invariant in INVARIANTS
            ]


async def _payments(conn: Connection) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(
        """
        SELECT tenant_id, coalesce(order_id, id::text), id, status, version, amount, currency,
               amount_captured, amount_refunded, coalesce(metadata, '{}')
        FROM payment_intents AS payment
        ORDER BY created_at, id
        """
    )
    return await cursor.fetchall()


def test_the_engine_does_what_the_model_does(world: World) -> None:
    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(Machine, settings=examples(25, stateful_step_count=20))
