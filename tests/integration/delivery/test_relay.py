"""The relay on a real PostgreSQL: nothing is lost, and each payment's events come in order, whatever fails."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest

from payments_ledger.delivery.queries import DueEvent
from payments_ledger.delivery.relay import Relay
from payments_ledger.delivery.reminder import Reminder
from payments_ledger.demo.seed import add_tenant
from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.ledger.queries import insert_accounts
from payments_ledger.messaging.messages import BrokerUnavailable, Message
from payments_ledger.messaging.publisher import Delivery, Fate
from payments_ledger.payments.events import WAITS_FOR_ITS_CAPTURE
from payments_ledger.payments.payment import CaptureMethod, Payment, Terms
from payments_ledger.payments.use_cases import CreatePayments, create_payments
from payments_ledger.postgres.database import Database, driver_url
from payments_ledger.postgres.roles import relay_role, runtime_role
from payments_ledger.schema.migrate import migrate
from tests.integration.books import (
    ORIGIN,
    confirm_a_payment,
    create_a_payment,
    creation,
    only_payment,
    settle_a_payment,
)
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

TENANT = "t"


class FakeBroker:
    """Takes messages, and does with each what `fate` says."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.fate: Callable[[Message], Delivery] = lambda _: Delivery(Fate.ROUTED)
        self.pause = asyncio.Event()
        self.pause.set()
        self.reached = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> list[Delivery]:
        self.reached.set()
        await self.pause.wait()
        deliveries = [self.fate(message) for message in messages]
        self.taken += [
            message for message, delivery in zip(messages, deliveries, strict=True) if delivery.fate is Fate.ROUTED
        ]
        return deliveries

    async def close(self) -> None:
        pass

    def statuses(self, payment_id: UUID) -> list[str]:
        return [message.type for message in self.taken if str(payment_id) in message.body.decode()]


IN_ORDER = ["payment.intent.created", "payment.authorized", "payment.settled"]


@pytest.fixture(scope="module")
def relay_url(postgres: PostgresServer) -> str:
    """A database of its own: a relay serves every tenant, so it would take other tests' events."""
    url = postgres.create_database("relay")
    migrate(url)
    return url


@pytest.fixture
async def books(relay_url: str) -> AsyncIterator[Database]:
    owner = Database(relay_url, role=None, pool_size_max=2)
    await owner.open()
    async with owner.transaction([TENANT]) as conn:
        await add_tenant(conn, TENANT, "The relay's")
        await insert_accounts(conn, TENANT, DEFAULT_ACCOUNTS)
    books = Database(relay_url, role=runtime_role(relay_url), pool_size_max=4)
    await books.open()
    yield books
    await books.close()
    await owner.close()
    with psycopg.connect(driver_url(relay_url).replace("app:app@", "postgres@")) as conn:
        # Past the triggers, as only a superuser can.
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM outbox_events")


@pytest.fixture
async def outbox(relay_url: str) -> AsyncIterator[Database]:
    outbox = Database(relay_url, role=relay_role(relay_url), pool_size_max=4)
    await outbox.open()
    yield outbox
    await outbox.close()


def needed(event: DueEvent) -> bool:
    return event.event_type == "payment.authorized"


async def relay_all(relay: Relay) -> None:
    while await relay.step():
        pass


async def state_of_outbox(outbox: Database) -> list[tuple[str, bool, bool, int]]:
    async with outbox.transaction() as conn:
        cursor = await conn.execute(
            """
            SELECT event_type, published_at IS NOT NULL, buried_at IS NOT NULL, attempts
            FROM outbox_events ORDER BY aggregate_id, sequence
            """
        )
        return await cursor.fetchall()


async def test_a_payments_events_are_published_once_and_in_order(books: Database, outbox: Database) -> None:
    payment = await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    relay = Relay(outbox, broker, is_needed=needed)
    await relay_all(relay)
    await relay_all(relay)
    assert broker.statuses(payment.id) == IN_ORDER
    assert broker.taken[1].headers == {"X-Correlation-Id": "corr-test", "X-Tenant-Id": TENANT}
    assert len({message.id for message in broker.taken}) == 3


async def test_two_relays_keep_the_order_within_each_payment(books: Database, outbox: Database) -> None:
    payments = [await settle_a_payment(books, TENANT) for _ in range(15)]
    broker = FakeBroker()
    publish = broker.publish

    async def slowly(messages: Sequence[Message]) -> list[Delivery]:
        await asyncio.sleep(random.uniform(0, 0.005))
        return await publish(messages)

    broker.publish = slowly  # type: ignore[method-assign]
    relays = [Relay(outbox, broker, is_needed=needed) for _ in range(3)]
    for _ in range(3):
        await asyncio.gather(*(relay_all(relay) for relay in relays))
    for payment in payments:
        assert broker.statuses(payment.id) == IN_ORDER
    assert len(broker.taken) == 45


async def test_what_another_relay_holds_is_passed_over_and_its_successors_wait(
    books: Database, outbox: Database
) -> None:
    payment = await settle_a_payment(books, TENANT)
    slow, quick = FakeBroker(), FakeBroker()
    slow.pause.clear()
    holding = asyncio.create_task(Relay(outbox, slow, is_needed=needed).step())
    await asyncio.sleep(0.1)
    assert await Relay(outbox, quick, is_needed=needed).step() == 0
    slow.pause.set()
    await holding
    await relay_all(Relay(outbox, quick, is_needed=needed))
    assert slow.statuses(payment.id) + quick.statuses(payment.id) == IN_ORDER


async def test_nothing_is_marked_while_the_broker_is_away(books: Database, outbox: Database) -> None:
    payment = await create_a_payment(books, TENANT)
    broker = FakeBroker()

    def away(_: Message) -> Delivery:
        raise BrokerUnavailable

    broker.fate = away
    relay = Relay(outbox, broker, is_needed=needed)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            await relay.step()
    assert await state_of_outbox(outbox) == [("payment.intent.created", False, False, 0)]
    broker.fate = lambda _: Delivery(Fate.ROUTED)
    await relay_all(relay)
    assert broker.statuses(payment.id) == IN_ORDER[:1]


async def test_an_event_whose_publishing_failed_is_tried_again_needed_or_not(books: Database, outbox: Database) -> None:
    await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    broker.fate = lambda _: Delivery(Fate.FAILED, "chaos_injected")
    await relay_all(Relay(outbox, broker, is_needed=lambda _: False))
    assert await state_of_outbox(outbox) == [
        ("payment.intent.created", False, False, 1),
        ("payment.authorized", False, False, 0),
        ("payment.settled", False, False, 0),
    ]


async def test_a_needed_event_that_reaches_no_queue_is_tried_again_and_its_successors_wait(
    books: Database, outbox: Database
) -> None:
    payment = await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    broker.fate = lambda message: Delivery(Fate.UNROUTED if message.type == "payment.authorized" else Fate.ROUTED)
    relay = Relay(outbox, broker, is_needed=needed)
    await relay_all(relay)
    assert await state_of_outbox(outbox) == [
        ("payment.intent.created", True, False, 1),
        ("payment.authorized", False, False, 1),
        ("payment.settled", False, False, 0),
    ]
    broker.fate = lambda _: Delivery(Fate.ROUTED)
    await relay_all(relay)
    assert broker.statuses(payment.id) == IN_ORDER[:1]
    async with outbox.transaction() as conn:
        await conn.execute("UPDATE outbox_events SET next_attempt_at = now()")
    await relay_all(relay)
    assert broker.statuses(payment.id) == IN_ORDER


async def test_another_event_that_no_queue_wants_is_done(books: Database, outbox: Database) -> None:
    await create_a_payment(books, TENANT)
    broker = FakeBroker()
    broker.fate = lambda _: Delivery(Fate.UNROUTED)
    await relay_all(Relay(outbox, broker, is_needed=needed))
    assert await state_of_outbox(outbox) == [("payment.intent.created", True, False, 1)]


async def test_a_refused_event_is_buried_with_its_reason_and_its_successors_wait(
    books: Database, outbox: Database
) -> None:
    await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    fates: Iterator[Fate] = iter([Fate.ROUTED, Fate.REFUSED])
    broker.fate = lambda _: Delivery(next(fates), "no")
    await relay_all(Relay(outbox, broker, is_needed=needed))
    assert await state_of_outbox(outbox) == [
        ("payment.intent.created", True, False, 1),
        ("payment.authorized", False, True, 1),
        ("payment.settled", False, False, 0),
    ]
    async with outbox.transaction() as conn:
        cursor = await conn.execute("SELECT last_error FROM outbox_events WHERE buried_at IS NOT NULL")
        assert await cursor.fetchall() == [("no",)]


async def test_a_relay_that_is_stopped_finishes_its_step_and_flushes_the_rest(
    books: Database, outbox: Database
) -> None:
    payment = await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    broker.pause.clear()
    relay = Relay(outbox, broker, is_needed=needed)
    running = asyncio.create_task(relay.run())
    await asyncio.wait_for(broker.reached.wait(), 10)
    running.cancel()
    broker.pause.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    published = [is_published for _, is_published, _, _ in await state_of_outbox(outbox)]
    assert published == [True, False, False]
    await relay.flush()
    assert broker.statuses(payment.id) == IN_ORDER


async def test_a_flush_ends_although_the_broker_is_away(books: Database, outbox: Database) -> None:
    await settle_a_payment(books, TENANT)
    broker = FakeBroker()

    def away(_: Message) -> Delivery:
        raise BrokerUnavailable("gone")

    broker.fate = away
    await Relay(outbox, broker, is_needed=needed).flush()
    assert [is_published for _, is_published, _, _ in await state_of_outbox(outbox)] == [False] * 3


async def grow_older(outbox: Database, seconds: int) -> None:
    async with outbox.transaction() as conn:
        await conn.execute(
            "UPDATE outbox_events SET published_at = published_at - make_interval(secs => %s)", [seconds]
        )


async def test_an_event_that_the_broker_lost_is_published_again_after_pauses_that_double(
    books: Database, outbox: Database
) -> None:
    lost = await confirm_a_payment(books, await create_a_payment(books, TENANT))
    settled = await settle_a_payment(books, TENANT)
    broker = FakeBroker()
    relay = Relay(outbox, broker, is_needed=needed)
    reminder = Reminder(outbox, "payment.authorized", after_seconds=60)
    await relay_all(relay)
    assert await reminder.step() == 0
    for seconds in (61, 121, 241):
        await grow_older(outbox, seconds)
        assert await reminder.step() == 1
        assert await Reminder(outbox, "payment.authorized", after_seconds=60).step() == 0
        await relay_all(relay)
        await grow_older(outbox, seconds - 2)
        assert await reminder.step() == 0
    assert broker.statuses(lost.id) == [*IN_ORDER[:2], *["payment.authorized"] * 3]
    assert broker.statuses(settled.id) == IN_ORDER


async def test_nobody_is_reminded_of_an_authorization_that_waits_for_its_capture(
    books: Database, outbox: Database
) -> None:
    manual = replace(only_payment(creation(TENANT)), terms=Terms(CaptureMethod.MANUAL))
    async with books.transaction([TENANT]) as conn:
        [[payment]] = await create_payments(conn, [CreatePayments(TENANT, (manual,), ORIGIN)])
    assert isinstance(payment, Payment)
    automatic = await create_a_payment(books, TENANT)
    for created in (payment, automatic):
        await confirm_a_payment(books, created)
    await relay_all(Relay(outbox, FakeBroker(), is_needed=needed))
    await grow_older(outbox, 3600)
    reminder = Reminder(outbox, "payment.authorized", after_seconds=60, unless=WAITS_FOR_ITS_CAPTURE)
    assert await reminder.step() == 1
    assert [(event, due) for event, due, _, _ in await state_of_outbox(outbox)].count(
        ("payment.authorized", False)
    ) == 1


async def test_a_relay_that_fails_in_a_way_that_nobody_foresaw_tries_again(books: Database, outbox: Database) -> None:
    payment = await create_a_payment(books, TENANT)
    broker = FakeBroker()
    faults = iter([ValueError("nobody foresaw this")])

    def fails_once(_: Message) -> Delivery:
        if fault := next(faults, None):
            raise fault
        return Delivery(Fate.ROUTED)

    broker.fate = fails_once
    running = asyncio.create_task(Relay(outbox, broker, is_needed=needed).run())
    async with asyncio.timeout(10):
        while not broker.taken:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert broker.statuses(payment.id) == IN_ORDER[:1]
