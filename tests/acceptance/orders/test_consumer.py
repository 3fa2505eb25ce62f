"""The orders service as this test plays it, with its own declarations, and our worker, on a real broker.

Long because every test needs the same orders service.
"""

import asyncio
import json
import random
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from payments_ledger.api import create_app
from payments_ledger.messaging import handling
from payments_ledger.messaging.handling import BODY_BYTES_MAX
from payments_ledger.operations.dead_letters import having_ids
from payments_ledger.rabbitmq import copies
from payments_ledger.rabbitmq.copies import MARKS
from tests.acceptance.conftest import Engine, command
from tests.acceptance.operations import (
    create_tenant,
    drop_dead_letters,
    list_dead_letters,
    replay_dead_letters,
    suspend_tenant,
)
from tests.acceptance.worker_here import TENANT, ask, dead_letters_are, eventually, settings_of, worker_in_this_process
from tests.profiles import scaled
from tests.services import PostgresServer

pytestmark = pytest.mark.anyio

CONFIRMED = "order.confirmed"
CHARGE = "payment.charge_requested"
DUPLICATES = 100
ORDERS = scaled(2_000, nightly=10_000)
# How long a second message for one order would have to show itself.
SETTLE_DOWN_SECONDS = 0.5


@pytest.fixture(scope="module")
def installation(engine: Engine, postgres: PostgresServer) -> Engine:
    """One of its own, whose orders integration is on."""
    changes = {
        "DATABASE_URL": postgres.create_database("orders"),
        "ORDERS_INTEGRATION_ENABLED": "true",
        # Several workers run side by side.
        "WORKER_PORT": "0",
    }
    engine = replace(engine, environment=engine.environment | changes)
    engine.install()
    return engine


@pytest.fixture
def orders_engine(installation: Engine) -> Engine:
    """Its queues are this test's own: no other test's orders wait in them, and none of its dead letters."""
    return replace(
        installation, environment=installation.environment | {"ORDERS_QUEUE": f"orders.of.{uuid4().hex}.events"}
    )


def dead_letters_of(engine: Engine) -> str:
    return engine.environment["ORDERS_QUEUE"].replace(".events", ".dlq")


@dataclass
class OrdersService:
    """What the orders service declares, publishes and receives."""

    connection: AbstractConnection
    channel: AbstractChannel
    exchange: aio_pika.abc.AbstractExchange
    payments: aio_pika.abc.AbstractExchange
    queue: aio_pika.abc.AbstractQueue

    async def publish(self, body: bytes, key: str = CONFIRMED, headers: aio_pika.abc.HeadersType | None = None) -> None:
        exchange = self.payments if key == CHARGE else self.exchange
        message = aio_pika.Message(body, headers=headers, delivery_mode=2, content_type="application/json")
        await exchange.publish(message, key, mandatory=True)

    async def settled(self, *order_ids: str, seconds: float = 60) -> list[AbstractIncomingMessage]:
        """The messages of these orders on its queue, once each has one; those that come right after them, too.

        A worker that ended between the broker's confirm and its own commit has the next one publish again, so messages
        of other orders may be among them.
        """
        taken: list[AbstractIncomingMessage] = []
        missing = set(order_ids)
        enough = asyncio.Event()

        async def take(incoming: AbstractIncomingMessage) -> None:
            order_id = json.loads(incoming.body)["order_id"]
            if order_id in wanted:
                taken.append(incoming)
            missing.discard(order_id)
            if not missing:
                enough.set()

        wanted = frozenset(missing)
        tag = await self.queue.consume(take, no_ack=True)
        async with asyncio.timeout(seconds):
            await enough.wait()
        await asyncio.sleep(SETTLE_DOWN_SECONDS)
        await self.queue.cancel(tag)
        return taken

    async def count(self, queue_name: str) -> int:
        declared = await self.channel.declare_queue(queue_name, passive=True)
        return declared.declaration_result.message_count or 0


@asynccontextmanager
async def orders_service(engine: Engine) -> AsyncIterator[OrdersService]:
    async with await aio_pika.connect(engine.environment["RABBITMQ_URL"]) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange("orders.x", "topic", durable=True)
        payments = await channel.declare_exchange("payments.x", "topic", durable=True)
        queue = await channel.declare_queue("orders.payments.events", durable=True)
        await queue.bind(payments, "payment.settled")
        await queue.purge()
        try:
            yield OrdersService(connection, channel, exchange, payments, queue)
        finally:
            # Else it would go on collecting the orders of other tests.
            for name in (engine.environment["ORDERS_QUEUE"], dead_letters_of(engine)):
                await channel.queue_delete(name)


def captured(order_id: str, **changes: Any) -> bytes:
    """The message as the orders service really sends it."""
    body = {
        "items": [{"qty": 3, "sku": "SKU-2", "price": 79.9}],
        "orderId": order_id,
        "currency": "BRL",
        "tenantId": TENANT,
        "customerId": "CUST-1",
        "totalAmount": 79.9 * 3,
        "correlationId": "corr-demo-1",
    }
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...}).encode()


async def publish_once_bound(service: OrdersService, body: bytes, key: str = CONFIRMED) -> None:
    """Publishes as soon as the worker has bound its queue."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await service.publish(body, key)
            except aio_pika.exceptions.PublishError:
                await asyncio.sleep(0.1)


async def test_a_hundred_duplicates_on_both_keys_over_two_workers_and_a_kill_end_in_one_payment(
    orders_engine: Engine,
) -> None:
    order_id = str(uuid4())
    keys = [CONFIRMED, CHARGE] * DUPLICATES
    random.shuffle(keys)
    async with orders_service(orders_engine) as service:
        with orders_engine.process("worker") as survivor, orders_engine.process("worker") as victim:
            for key in (CONFIRMED, CHARGE):
                await publish_once_bound(service, captured(order_id), key)
            for number, key in enumerate(keys):
                if number == len(keys) // 2:
                    victim.kill()
                await service.publish(captured(order_id), key)
                await asyncio.sleep(0.002)
            await asyncio.to_thread(victim.wait)
            with orders_engine.worker():
                # The last one tells that all before it were handled, since it has a payment of its own.
                await service.publish(captured(last := str(uuid4())))
                received = await service.settled(order_id, last)
                await eventually(lambda: ask(orders_engine, "SELECT 1 FROM orders WHERE order_id = %s", last))
                await eventually(lambda: not ask(orders_engine, "SELECT FROM outbox_events WHERE published_at IS NULL"))
            assert survivor.poll() is None
    [(payment_id, status)] = ask(orders_engine, "SELECT id, status FROM payment_intents WHERE order_id = %s", order_id)
    assert status == "SETTLED"
    assert ask(orders_engine, "SELECT kind FROM ledger_entries WHERE source_id = %s", payment_id) == [("settlement",)]
    settled = [message for message in received if json.loads(message.body)["order_id"] == order_id]
    # A worker that is killed between the broker's confirmation and its own commit publishes once more, under one id.
    assert len({message.message_id for message in settled}) == 1
    content = json.loads(settled[0].body)
    assert content.pop("occurred_at")
    assert content == {
        "payment_intent_id": str(payment_id),
        "tenant_id": TENANT,
        "status": "SETTLED",
        "amount": "239.70",
        "amount_authorized": "239.70",
        "currency": "BRL",
        "customer_ref": f"order:{order_id}",
        "order_id": order_id,
        "correlation_id": "corr-demo-1",
    }
    assert (settled[0].type, settled[0].routing_key) == ("payment.settled", "payment.settled")


async def test_thousands_of_orders_go_in_and_as_many_settlements_come_out(
    orders_engine: Engine, record_property: Callable[[str, object], None]
) -> None:
    ids = [str(uuid4()) for _ in range(ORDERS)]
    cpu_before = cpu_of_children()
    async with orders_service(orders_engine) as service:
        with orders_engine.worker():
            await publish_once_bound(service, captured(ids[0]))
            began = time.monotonic()
            receiving = asyncio.create_task(service.settled(*ids, seconds=300))
            # Without confirmations: this test shares its two cores with everything that it measures.
            flood = await service.connection.channel(publisher_confirms=False)
            exchange = await flood.get_exchange("orders.x", ensure=False)
            for id_ in ids[1:]:
                await exchange.publish(aio_pika.Message(captured(id_), delivery_mode=2), CONFIRMED)
            received = await receiving
            seconds = time.monotonic() - began - SETTLE_DOWN_SECONDS
    worker_cpu = cpu_of_children() - cpu_before
    # At least once: a message that came again, since its confirm was late, has the same id.
    settled = {message.message_id: json.loads(message.body)["order_id"] for message in received}
    assert sorted(settled.values()) == sorted(ids)
    # On a machine that does other work as well, the worker's own time tells more than the clock's.
    rate = f"{ORDERS / seconds:.0f} a second, {worker_cpu / ORDERS * 1000:.1f} ms of the worker's CPU for each"
    record_property("measured", f"{ORDERS} orders settled in {seconds:.1f} s: {rate}")


def cpu_of_children() -> float:
    """Seconds of CPU of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass
class BadInput:
    """A message that cannot become a payment, and what its dead letter says."""

    reason: str
    body: bytes
    key: str = CONFIRMED
    tenant_header: str = TENANT


BAD_INPUTS = [
    BadInput("not JSON", b"{"),
    BadInput("not JSON", b"\xff\x00"),
    BadInput("not a JSON object", b"[1]"),
    BadInput("order_id: is required", captured("o", orderId=...)),
    BadInput("tenant_id: is required", captured("o", tenantId=...)),
    BadInput("orderId: must be a string", captured("o", orderId=["o"])),
    BadInput("tenantId: must be a string", captured("o", tenantId=7)),
    BadInput("totalAmount: must be a number", captured("o", totalAmount=True)),
    BadInput("not below zero", captured("o", totalAmount=float("nan"))),
    BadInput("not below zero", captured("o", totalAmount=-1)),
    BadInput("too large", captured("o", totalAmount=10**30)),
    BadInput("total_amount: is required", captured("o", totalAmount=...)),
    BadInput("totalAmount: must be a number", captured("o", totalAmount=None)),
    BadInput("ISO 4217", captured("o", currency="XXX")),
    BadInput("plain digits", captured("o", totalAmount="1e3")),
    BadInput("not below zero", captured("o", totalAmount="N").replace(b'"N"', b"1e9223372036854775808")),
    BadInput("must be a string", captured("o", currency="N").replace(b'"N"', b"1e9223372036854775808")),
    BadInput("card number", captured("4111111111111111")),
    BadInput(
        "given up after 2 attempts: unknown tenant nobody", captured("o", tenantId="nobody"), tenant_header="nobody"
    ),
    BadInput("X-Tenant-Id names another tenant", captured("o"), tenant_header="tenant_demo"),
    BadInput(f"{BODY_BYTES_MAX} are allowed", b" " * 5_000_000),
    BadInput("no handler for order.archived", captured("o"), key="order.archived"),
]


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LATER_SECONDS", (1,))
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 2)


async def take_all(channel: AbstractChannel, queue_name: str) -> list[AbstractIncomingMessage]:
    queue = await channel.get_queue(queue_name, ensure=False)
    taken = []
    while incoming := await queue.get(no_ack=True, fail=False):
        taken.append(incoming)
    return taken


def identity(letter: AbstractIncomingMessage) -> tuple[bytes, Any, Any]:
    return letter.body, letter.headers["X-Tenant-Id"], letter.headers["x-original-routing-key"]


@pytest.mark.usefixtures("short_delays")
async def test_bad_input_becomes_a_dead_letter_with_its_reason_and_the_next_order_is_paid(
    orders_engine: Engine,
) -> None:
    # The second key brings messages that nothing handles; the real one is among them.
    settings = settings_of(orders_engine, orders_routing_key="order.confirmed, order.*")
    paid_before = ask(orders_engine, "SELECT count(*) FROM payment_intents")
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured("o", totalAmount=0))
        await take_all(service.channel, dead_letters_of(orders_engine))
        for bad in BAD_INPUTS:
            await service.publish(bad.body, bad.key, {"X-Tenant-Id": bad.tenant_header, "number": 7})
        await service.publish(captured(order_id := str(uuid4())))
        # Where nobody reads it, a number beyond the exponents of Python's decimals harms nothing.
        unread = captured(beside := str(uuid4())).replace(b'"qty": 3', b'"qty": 1e-9223372036854775809')
        await service.publish(unread)
        await service.settled(order_id, beside)
        async with asyncio.timeout(20):
            while await service.count(dead_letters_of(orders_engine)) < len(BAD_INPUTS):
                await asyncio.sleep(0.05)
        dead = await take_all(service.channel, dead_letters_of(orders_engine))
        api = create_app(settings)
        async with (
            api.router.lifespan_context(api),
            httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client,
        ):
            assert (await client.get("/readyz")).json()["status"] == "ok"
            metrics = (await client.get("/metrics")).text
    assert sorted((letter.body, letter.headers["X-Tenant-Id"]) for letter in dead) == sorted(
        (bad.body, bad.tenant_header) for bad in BAD_INPUTS
    )
    for bad in BAD_INPUTS:
        [letter] = [letter for letter in dead if identity(letter) == (bad.body, bad.tenant_header, bad.key)]
        assert bad.reason in str(letter.headers["x-reason"])
        assert letter.headers["x-attempts"] == (2 if "unknown tenant" in bad.reason else 1)
        assert letter.headers["number"] == 7
    assert 'ledger_messages_handled_total{outcome="dead_letter",type="order.confirmed"}' in metrics
    assert 'ledger_messages_handled_total{outcome="dead_letter",type="unknown"}' in metrics
    [(count_before,)] = paid_before
    assert ask(orders_engine, "SELECT count(*) FROM payment_intents") == [(count_before + 2,)]


async def test_a_cancellation_undoes_a_payment_and_outlives_a_confirmation_that_comes_late(
    orders_engine: Engine,
) -> None:
    settings = settings_of(orders_engine)
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured(settled := str(uuid4())))
        await service.settled(settled)
        early = str(uuid4())
        for order_id in (settled, early):
            await service.publish(captured(order_id), "order.cancelled")
        refunded = "SELECT payload->>'order_id' FROM outbox_events WHERE event_type = 'payment.refunded'"
        await eventually(lambda: ask(orders_engine, refunded) == [(settled,)])
        await eventually(lambda: ask(orders_engine, "SELECT 1 FROM orders WHERE order_id = %s", early))
        await service.publish(captured(early))
        await service.publish(captured(last := str(uuid4())))
        await service.settled(last)
    assert ask(orders_engine, "SELECT FROM payment_intents WHERE order_id = %s", early) == []
    kinds = """
        SELECT kind FROM ledger_entries JOIN payment_intents AS p ON p.id = coalesce(subject_id, source_id)
        WHERE order_id = %s ORDER BY kind
        """
    assert sorted(ask(orders_engine, kinds, settled)) == [("refund",), ("settlement",)]


@pytest.mark.usefixtures("short_delays")
async def test_an_order_waits_for_its_tenant_to_be_synchronized(
    orders_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 10)
    settings = settings_of(orders_engine, tenants_sync_enabled=True)
    tenant_id, order_id = f"tenant-{uuid4()}", str(uuid4())
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured(order_id, tenantId=tenant_id))
        # Those behind it do not wait.
        await service.publish(captured(other := str(uuid4())))
        await service.settled(other)
        tenants = await service.channel.declare_exchange("tenants.x", "topic", durable=True)
        body = json.dumps({"tenantId": tenant_id, "name": "New", "plan": "pro"}).encode()
        await tenants.publish(aio_pika.Message(body), "tenant.created", mandatory=True)
        await service.settled(order_id)
        for key in ("tenant.updated", "tenant.deleted", "tenant.created"):
            await tenants.publish(aio_pika.Message(body.replace(b"pro", b"free")), key, mandatory=True)
        row = "SELECT name, plan, region, suspended_at IS NOT NULL FROM tenants WHERE tenant_id = %s"
        as_it_is = [("New", "free", "unknown", True)]
        await eventually(lambda: ask(orders_engine, row, tenant_id, tenant=tenant_id) == as_it_is)


@pytest.mark.usefixtures("short_delays")
async def test_an_order_of_a_suspended_tenant_waits_and_is_a_dead_letter_while_cancellations_go_on(
    orders_engine: Engine,
) -> None:
    settings = settings_of(orders_engine)
    tenant_id, paid, late = f"tenant-{uuid4()}", str(uuid4()), str(uuid4())
    await create_tenant(settings, tenant_id)
    statuses = "SELECT order_id, status FROM payment_intents ORDER BY id"
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured(paid, tenantId=tenant_id))
        await service.settled(paid)
        await drop_dead_letters(settings)
        await suspend_tenant(settings, tenant_id, suspended=True)
        # It is known already: to hear of it again is no new payment.
        await service.publish(captured(paid, tenantId=tenant_id))
        await service.publish(captured(late, tenantId=tenant_id))
        await dead_letters_are(settings, 1)
        [letter] = await list_dead_letters(settings)
        assert letter.reason == f"given up after 2 attempts: tenant {tenant_id} is suspended"
        assert ask(orders_engine, statuses, tenant=tenant_id) == [(paid, "SETTLED")]
        await service.publish(captured(paid, tenantId=tenant_id), "order.cancelled")
        refunds = "SELECT 1 FROM ledger_entries WHERE kind = 'refund'"
        await eventually(lambda: ask(orders_engine, refunds, tenant=tenant_id))
        await suspend_tenant(settings, tenant_id, suspended=False)
        assert len(await replay_dead_letters(settings, lambda _: True)) == 1
        await service.settled(late)


async def test_an_order_that_costs_nothing_leaves_one_row_in_the_audit_log_and_no_payment(
    orders_engine: Engine,
) -> None:
    settings, free = settings_of(orders_engine), str(uuid4())
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        # What is bound last comes first: then the other is bound as well.
        await publish_once_bound(service, captured(free, totalAmount=0), CHARGE)
        await service.publish(captured(free, totalAmount=0))
        await service.publish(captured(last := str(uuid4())))
        await service.settled(last)
    assert ask(orders_engine, "SELECT FROM payment_intents WHERE order_id = %s", free) == []
    told = "SELECT action, principal, correlation_id FROM audit_log WHERE target = %s"
    assert ask(orders_engine, told, free) == [("order.nothing_to_pay", "orders", "corr-demo-1")]


async def dead_letters(engine: Engine, *arguments: str) -> str:
    """What the command prints."""
    done = await asyncio.to_thread(command, engine, "dead-letters", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


async def test_dead_letters_are_listed_shown_replayed_and_dropped_by_the_operator(orders_engine: Engine) -> None:
    settings = settings_of(orders_engine)

    async def as_json(*arguments: str) -> list[dict[str, Any]]:
        lines = (await dead_letters(orders_engine, *arguments, "--json")).splitlines()
        return [json.loads(line) for line in lines if line]

    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured("o", totalAmount=0))
        await drop_dead_letters(settings)
        for body in (b"{", captured("o"), b"["):
            await service.publish(body, headers={"X-Tenant-Id": "tenant_demo"} if body[1:] else None)
        await dead_letters_are(settings, 3)
        letters = {letter["body"]: letter for letter in await as_json("list")}
        foreign = letters[captured("o").decode()]
        queue = orders_engine.environment["ORDERS_QUEUE"]
        assert (foreign["queue"], foreign["routing_key"]) == (queue, CONFIRMED)
        assert foreign["reason"] == "X-Tenant-Id names another tenant than the body"
        assert await as_json("show", letters["{"]["id"][:12]) == [letters["{"]]
        # It fails again, and is a dead letter under a new id: a replay loses nothing.
        assert await as_json("replay", foreign["id"]) == [foreign]
        assert await replay_dead_letters(settings, having_ids([foreign["id"]])) == []
        await dead_letters_are(settings, 3)
        assert await as_json("drop", letters["{"]["id"]) == [letters["{"]]
        heading, *lines = (await dead_letters(orders_engine, "list")).splitlines()
        assert heading.split() == ["id", "since", "queue", "routing_key", "reason"]
        assert all(queue in line for line in lines)
        done = "SELECT tenant_id, action, target, detail->>'queue' FROM audit_log WHERE action LIKE 'dead_letter.%%'"
        # By the tenant in the header, which exists; and by none, for nobody can read whose it is.
        assert ("tenant_demo", "dead_letter.replay", foreign["id"], queue) in ask(
            orders_engine, done, tenant="tenant_demo"
        )
        assert ("*", "dead_letter.drop", letters["{"]["id"], queue) in ask(orders_engine, done, tenant="*")
        # The broker counts who looks, and would drop what was looked at too often.
        for _ in range(25):
            await dead_letters_are(settings, 2)
        assert {letter.reason for letter in await list_dead_letters(settings)} == {
            foreign["reason"],
            letters["["]["reason"],
        }
        await drop_dead_letters(settings)
        assert "no dead letters" in await dead_letters(orders_engine, "list")


# Sets the window's title, clears the screen, goes back to the line's beginning, as one byte in C1, turns the direction.
ESCAPES = "\x1b]0;title\x07\x1b[2J\r\x9b2J\u202e"


async def test_what_a_sender_wrote_is_shown_to_the_operator_and_not_obeyed_by_the_terminal(
    orders_engine: Engine,
) -> None:
    settings = settings_of(orders_engine)
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await publish_once_bound(service, captured("o", totalAmount=0))
        await drop_dead_letters(settings)
        headers: aio_pika.abc.HeadersType = {"X-Tenant-Id": ESCAPES, ESCAPES: ESCAPES}
        await service.publish(captured("o", totalAmount=ESCAPES) + f"\n{ESCAPES}".encode(), headers=headers)
        await service.publish(captured("o", currency=ESCAPES), headers=headers)
        # As the broker would, with what it takes for a reason.
        marks: aio_pika.abc.HeadersType = dict.fromkeys(MARKS, ESCAPES)
        await service.channel.default_exchange.publish(
            aio_pika.Message(b"{}", headers=marks), dead_letters_of(orders_engine)
        )
        await dead_letters_are(settings, 3)

        shown = partial(dead_letters, orders_engine)

        letters = [json.loads(line) for line in (await shown("list", "--json")).splitlines()]
        assert [letter["headers"].get("X-Tenant-Id") for letter in letters].count(ESCAPES) == 2
        texts = [await shown("list"), await shown("list", "--json")]
        for letter in letters:
            texts += [await shown("show", letter["id"]), await shown("show", letter["id"], "--json")]
        texts.append(await shown("drop", "--all", "--json"))
    for text in texts:
        assert not set(ESCAPES.replace("title", "").replace("[2J", "").replace("]0;", "").replace("2J", "")) & set(text)
        assert "\\u001b" in text


async def test_a_replayed_order_is_paid_once_its_cause_is_gone(
    orders_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handling, "ATTEMPTS_MAX", 1)
    settings = settings_of(orders_engine, tenants_sync_enabled=True)
    tenant_id, order_id = f"tenant-{uuid4()}", str(uuid4())
    async with orders_service(orders_engine) as service, worker_in_this_process(settings):
        await drop_dead_letters(settings)
        await publish_once_bound(service, captured(order_id, tenantId=tenant_id), CHARGE)
        await dead_letters_are(settings, 1)
        [letter] = await list_dead_letters(settings)
        assert (letter.routing_key, letter.attempts) == (CHARGE, 1)
        tenants = await service.channel.declare_exchange("tenants.x", "topic", durable=True)
        await tenants.publish(aio_pika.Message(b'{"id": "%s"}' % tenant_id.encode()), "tenant.created", mandatory=True)
        find = "SELECT 1 FROM accounts WHERE tenant_id = %s"
        await eventually(lambda: ask(orders_engine, find, tenant_id, tenant=tenant_id))
        assert len(await replay_dead_letters(settings, lambda _: True)) == 1
        await service.settled(order_id)
        assert await list_dead_letters(settings) == []
