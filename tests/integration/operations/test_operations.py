"""What the operator's commands do to a real database: follow events, publish again, add users and tenants."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from payments_ledger.access.queries import find_user
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.commit.audit import Origin
from payments_ledger.delivery.queries import OutboxEvent
from payments_ledger.errors import Invalid, TenantExists, UnknownTenant, UserExists, UserNotFound
from payments_ledger.operations import outbox, queries
from payments_ledger.operations.outbox import Followed, follow
from payments_ledger.operations.roles import auditing
from payments_ledger.operations.tenants import create_tenant, list_tenants
from payments_ledger.operations.users import create_user, disable_user, give_roles, list_users
from payments_ledger.payments.payment import Payment
from payments_ledger.postgres.database import Connection, Database, acting_as
from payments_ledger.postgres.roles import relay_role
from payments_ledger.telemetry.tracing import Trace
from payments_ledger.tenants.queries import find_tenant
from tests.integration.books import confirm_a_payment, create_a_payment, settle_a_payment

pytestmark = pytest.mark.anyio

IN_ORDER = ["payment.intent.created", "payment.authorized", "payment.settled"]
OPS = frozenset({"ops"})
OPERATOR = Origin("cli:tester", None, Trace("corr-operator"))
ANSWER_SECONDS_MAX = 20


async def take(events: AsyncGenerator[Followed], count: int) -> list[OutboxEvent]:
    """The next events, whatever is told of outages in between."""
    taken: list[OutboxEvent] = []
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        while len(taken) < count:
            followed = await anext(events)
            if followed.event:
                taken.append(followed.event)
    return taken


async def audit_rows(conn: Connection, tenant: str, action: str) -> list[tuple[str, str]]:
    cursor = await conn.execute(
        "SELECT principal, target FROM audit_log WHERE tenant_id = %s AND action = %s ORDER BY at", [tenant, action]
    )
    return await cursor.fetchall()


async def bury_all(database_url: str, owner: Database, payment: Payment) -> None:
    async with owner.transaction() as conn, acting_as(conn, relay_role(database_url)):
        await conn.execute(
            "UPDATE outbox_events SET buried_at = now(), attempts = 5, last_error = 'no' WHERE aggregate_id = %s",
            [payment.id],
        )


async def test_events_are_followed_in_order_each_once_and_only_those_that_are_asked_for(
    owner: Database, database: Database, tenant: str
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    first = await settle_a_payment(database, tenant)
    everything = follow(owner, since=since, tenant_id=tenant, event_types=())
    settled_only = follow(owner, since=since, tenant_id=tenant, event_types=["payment.settled"])
    async with aclosing(everything), aclosing(settled_only):
        assert [(event.event_type, event.aggregate_id) for event in await take(everything, 3)] == [
            (type_, first.id) for type_ in IN_ORDER
        ]
        second = await settle_a_payment(database, tenant)
        assert [(event.event_type, event.aggregate_id) for event in await take(everything, 3)] == [
            (type_, second.id) for type_ in IN_ORDER
        ]
        assert [event.aggregate_id for event in await take(settled_only, 2)] == [first.id, second.id]


async def test_without_since_the_past_is_not_shown(owner: Database, database: Database, tenant: str) -> None:
    past = await settle_a_payment(database, tenant)
    events = follow(owner, since=None, tenant_id=tenant, event_types=())
    async with aclosing(events):
        following = asyncio.create_task(take(events, 1))
        payments: list[UUID] = []
        while not following.done():
            payments.append((await create_a_payment(database, tenant)).id)
            await asyncio.sleep(0.05)
        [event] = await following
    assert event.aggregate_id in payments
    assert event.aggregate_id != past.id


async def test_an_event_that_commits_after_younger_ones_is_followed_all_the_same(
    database: Database, owner: Database, tenant: str
) -> None:
    events = follow(owner, since=datetime.now(UTC), tenant_id=tenant, event_types=())
    slow = await create_a_payment(database, tenant)
    async with aclosing(events):
        await take(events, 1)
        async with owner.transaction([tenant]) as conn:
            # Its id is as old as any event's that waited for its batch.
            await conn.execute(
                """
                INSERT INTO outbox_events (tenant_id, id, event_type, aggregate_id, sequence, payload, headers)
                SELECT tenant_id, %s, 'late', aggregate_id, 99, payload, headers
                FROM outbox_events WHERE aggregate_id = %s
                """,
                [UUID(int=int((datetime.now(UTC) - timedelta(seconds=5)).timestamp() * 1000) << 80), slow.id],
            )
            young = await create_a_payment(database, tenant)
            assert [event.aggregate_id for event in await take(events, 1)] == [young.id]
        assert [event.event_type for event in await take(events, 1)] == ["late"]


async def test_following_goes_on_after_the_database_has_closed_every_connection(
    database: Database, owner: Database, tenant: str
) -> None:
    events = follow(owner, since=datetime.now(UTC), tenant_id=tenant, event_types=())
    async with aclosing(events):
        await create_a_payment(database, tenant)
        await take(events, 1)
        async with owner.transaction() as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = current_user "
                "AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        payment = await create_a_payment(database, tenant)
        assert [event.aggregate_id for event in await take(events, 1)] == [payment.id]


async def test_buried_events_are_listed_and_are_due_again_after_a_retry_which_is_audited(
    database_url: str, database: Database, owner: Database, tenant: str
) -> None:
    payment = await confirm_a_payment(database, await create_a_payment(database, tenant))
    await bury_all(database_url, owner, payment)
    buried = await outbox.list_unpublished(owner, state="buried", tenant_id=tenant, limit=10)
    assert [(event.state, event.last_error) for event in buried] == [("buried", "no")] * 2
    assert await outbox.list_unpublished(owner, state="pending", tenant_id=tenant, limit=10) == []
    retried = await outbox.retry(owner, OPERATOR, buried)
    assert {event.id for event in retried} == {event.id for event in buried}
    pending = await outbox.list_unpublished(owner, state=None, tenant_id=tenant, limit=10)
    assert [(event.state, event.attempts, event.last_error) for event in pending] == [("pending", 0, None)] * 2
    async with owner.transaction([tenant]) as conn:
        assert set(await audit_rows(conn, tenant, "outbox.retry")) == {
            ("cli:tester", str(event.id)) for event in buried
        }


async def test_what_was_published_goes_out_again_only_when_that_is_asked_for(
    database_url: str, database: Database, owner: Database, tenant: str
) -> None:
    payment = await create_a_payment(database, tenant)
    async with owner.transaction() as conn, acting_as(conn, relay_role(database_url)):
        await conn.execute("UPDATE outbox_events SET published_at = now() WHERE tenant_id = %s", [tenant])
    events = await outbox.find_events(owner, ids=(), aggregate_id=payment.id)
    assert [event.state for event in events] == ["published"]
    assert await outbox.retry(owner, OPERATOR, events) == []
    assert await outbox.retry(owner, OPERATOR, events, again=True) == events
    [event] = await outbox.find_events(owner, ids=[events[0].id], aggregate_id=None)
    assert event.state == "pending"


async def test_a_tenant_that_is_added_can_be_worked_in_at_once(owner: Database, database: Database) -> None:
    tenant = f"tenant-{uuid4()}"
    terms = {"tenant_id": tenant, "name": "New", "plan": "pro", "region": "region-a", "zone": "UTC"}
    added = await create_tenant(owner, OPERATOR, **terms)
    assert added in await list_tenants(owner)
    await settle_a_payment(database, tenant)
    with pytest.raises(TenantExists):
        await create_tenant(owner, OPERATOR, **terms)


async def test_users_are_added_disabled_and_given_roles_and_the_audit_log_names_the_operator(
    owner: Database, tenant: str
) -> None:
    user = await create_user(
        owner, OPERATOR, tenant_id=tenant, email="New@Test", password="long enough", roles=frozenset({"sales"})
    )
    assert (user.email, user.roles) == ("new@test", ["sales"])
    with pytest.raises(UserExists):
        await create_user(owner, OPERATOR, tenant_id=tenant, email="NEW@test", password="another", roles=OPS)
    assert (await give_roles(owner, OPERATOR, tenant, "NEW@TEST", frozenset({"ops"}))).roles == ["ops"]
    assert (await disable_user(owner, OPERATOR, tenant, "new@test", disabled=True)).disabled_at is not None
    assert await list_users(owner, tenant) == [await disable_user(owner, OPERATOR, tenant, "new@test", disabled=True)]
    async with owner.transaction([tenant]) as conn:
        assert await find_user(conn, tenant, "new@test") is None
        for action in ("user.create", "user.assign_roles", "user.disable"):
            assert await audit_rows(conn, tenant, action) == [(OPERATOR.principal, str(user.id))]
        cursor = await conn.execute("SELECT detail::text FROM audit_log WHERE tenant_id = %s", [tenant])
        assert "long enough" not in str(await cursor.fetchall())
    assert (await disable_user(owner, OPERATOR, tenant, "new@test", disabled=False)).disabled_at is None


async def test_what_cannot_be_done_is_refused_by_name(owner: Database, tenant: str) -> None:
    with pytest.raises(Invalid, match="no role boss"):
        await create_user(
            owner, OPERATOR, tenant_id=tenant, email="a@b", password="long enough", roles=frozenset({"boss"})
        )
    with pytest.raises(UnknownTenant):
        await create_user(owner, OPERATOR, tenant_id="nobody", email="a@b", password="long enough", roles=OPS)
    with pytest.raises(UnknownTenant):
        await list_users(owner, "nobody")
    with pytest.raises(UserNotFound):
        await disable_user(owner, OPERATOR, tenant, "nobody@test", disabled=True)


async def test_the_first_global_administrator_of_a_database_without_demo_users_can_be_added(owner: Database) -> None:
    async with owner.transaction([EVERY_TENANT]) as conn:
        assert await find_tenant(conn, EVERY_TENANT) is not None
    email = f"{uuid4()}@test"
    user = await create_user(
        owner, OPERATOR, tenant_id=EVERY_TENANT, email=email, password="long enough", roles=frozenset({"admin"})
    )
    assert user.roles == ["admin"]


async def test_what_was_settled_last_comes_first(owner: Database, database: Database, tenant: str) -> None:
    payments = [await settle_a_payment(database, tenant) for _ in range(3)]
    async with auditing(owner) as conn:
        settlements = await queries.list_last_settlements(conn, 1000)
    assert [settlement.payment_id for settlement in settlements if settlement.tenant_id == tenant] == [
        payment.id for payment in reversed(payments)
    ]
    assert settlements == sorted(settlements, key=lambda settlement: settlement.settled_at, reverse=True)
