"""Row-level security alone keeps tenants apart: every query runs with its tenant condition taken out."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncCursor, sql
from psycopg.abc import Params, Query
from psycopg.rows import TupleRow
from uuid_utils.compat import uuid7

import payments_ledger
from payments_ledger.access import queries as auth_queries
from payments_ledger.access.policy import DEFAULT_POLICIES
from payments_ledger.commit import audit, idempotency
from payments_ledger.commit import events as outbox
from payments_ledger.commit.audit import AuditRecord
from payments_ledger.commit.events import Event
from payments_ledger.commit.idempotency import Key, StoredResponse
from payments_ledger.delivery import queries as outbox_queries
from payments_ledger.delivery.queries import DueEvent, OutboxEvent, PublishedEvent
from payments_ledger.feed import queries as feed_queries
from payments_ledger.feed.patterns import EVERYTHING
from payments_ledger.ledger import currencies
from payments_ledger.ledger import queries as ledger_queries
from payments_ledger.ledger.accounts import Account, AccountType, Side
from payments_ledger.ledger.balances import queries as balances_queries
from payments_ledger.ledger.balances.balance import RunningBalance
from payments_ledger.ledger.chart import queries as chart_queries
from payments_ledger.ledger.chart.queries import AccountFilter
from payments_ledger.ledger.exports import queries as exports_queries
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.reports import queries as reports_queries
from payments_ledger.ledger.reports.queries import Cut
from payments_ledger.ledger.reports.statement import By, Place
from payments_ledger.ledger.transactions import queries as transactions_queries
from payments_ledger.ledger.transactions.queries import Note, TransactionFilter
from payments_ledger.ledger.transactions.transaction import Kind, Transaction
from payments_ledger.ledger.transactions.transaction import Status as TransactionStatus
from payments_ledger.operations import queries as operations_queries
from payments_ledger.orders import queries as orders_queries
from payments_ledger.payments import listing, timeline
from payments_ledger.payments import queries as payments_queries
from payments_ledger.payments.lifecycle import Status
from payments_ledger.payments.listing import PaymentFilter
from payments_ledger.payments.payment import Payment
from payments_ledger.payments.postings import settlement
from payments_ledger.payments.routes import CREATE, PATH
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.refunds import queries as refunds_queries
from payments_ledger.refunds.refund import Refund
from payments_ledger.tenants import queries as tenants_queries
from payments_ledger.tenants.queries import AuditFilter
from tests.integration.books import ORIGIN, creation, settle_a_payment
from tests.integration.conftest import Api
from tests.integration.schema.tables import TABLES

pytestmark = pytest.mark.anyio

# `tenant_id = %s`, whatever stands before the column, and with the parameter by name.
CONDITION = re.compile(r"""(?:"?\w+"?\.)?tenant_id = (%s|%\(tenant_id\)s|ANY \(%s\))""")


def _parameter_alone(condition: re.Match[str]) -> str:
    """Always true; the parameter stays, so that the others keep their places."""
    parameter = condition[1]
    return "%s::text[] IS NOT NULL" if parameter.startswith("ANY") else f"{parameter}::text IS NOT NULL"


class WithoutTenantCondition(AsyncCursor[TupleRow]):
    """Executes a statement as if somebody had forgotten the tenant in it."""

    async def execute(self, query: Query, params: Params | None = None, **options: Any) -> Any:
        if isinstance(query, sql.Composable):
            text = query.as_string(self)
        else:
            text = query.decode() if isinstance(query, bytes) else str(query)
        text = CONDITION.sub(_parameter_alone, text)
        return await super().execute(text.encode(), params, **options)


EXECUTES = re.compile(r"\b(conn|cursor)(\.cursor\(.*\))?\.execute\(")


NOW = datetime.now(UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class World:
    """A payment of another tenant with all that belongs to it; the statements name it, the transaction does not."""

    def __init__(self, tenant_id: str, payment: Payment, user_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.payment = payment
        self.user_id = user_id
        self.entry = settlement(replace(payment, id=uuid4(), status=Status.SETTLED), "corr-theirs")
        self.event = DueEvent(tenant_id, uuid4(), "payment.settled", payment.id, 1, "{}", {}, None, 0)
        self.waiting = OutboxEvent(
            tenant_id, self.event.id, "payment.settled", payment.id, 3, {}, {}, NOW, 0, NOW, None, None, "pending"
        )
        self.told = PublishedEvent(tenant_id, self.event.id, datetime.now(UTC), datetime.now(UTC), 1)
        self.record = AuditRecord(tenant_id, ORIGIN, "a", "t")
        self.key = Key(tenant_id, "tester", "POST /", "k", b"f", 60)
        self.keyed = CREATE.keyed(creation(tenant_id, payment.money), PATH, self.key)
        self.refund = Refund(tenant_id, uuid7(), payment.id, payment.money, NOW, reference="theirs")
        self.new_payment = replace(payment, id=uuid4(), status=Status.CREATED, version=1)
        self.moved = replace(payment, status=Status.AUTHORIZED, version=payment.version + 1)
        self.account = Account("THEIRS", "Theirs", AccountType.ASSET, id=uuid7(), version=1, created_at=NOW)
        self.balance = (tenant_id, RunningBalance("CASH", "BRL", Side.DEBIT, version=10**9))
        self.transaction = Transaction(
            tenant_id=tenant_id,
            id=uuid7(),
            kind=Kind.TRANSACTION,
            status=TransactionStatus.PENDING,
            postings=self.entry.postings,
            recorded_at=NOW,
            effective_at=NOW,
            correlation_id="corr-theirs",
            held=self.entry.postings,
        )
        self.note = Note(tenant_id, self.transaction.id, uuid7(), "theirs", "nobody", NOW)
        self.sent = Event(tenant_id, uuid7(), "payment.settled", uuid7(), 1, "{}", ORIGIN.trace)


type Case = Callable[[Connection, World], Awaitable[Any]]

CASES: dict[str, Case] = {
    "tenants.find_tenant": lambda conn, w: tenants_queries.find_tenant(conn, w.tenant_id),
    "tenants.list_tenants": lambda conn, w: tenants_queries.list_tenants(conn),
    "tenants.find_user_id": lambda conn, w: tenants_queries.find_user_id(conn, w.tenant_id, f"{w.user_id}@test"),
    "tenants.list_tenants_of_user": lambda conn, w: tenants_queries.list_tenants_of_user(conn, "nobody@test"),
    "tenants.lock_tenant": lambda conn, w: tenants_queries.lock_tenant(conn, w.tenant_id),
    "tenants.set_suspended": lambda conn, w: tenants_queries.set_suspended(conn, w.tenant_id, True),
    "access.delete_policy": lambda conn, w: auth_queries.delete_policy(conn, w.tenant_id, "what-roles-permit"),
    "tenants.list_permissions_by_role": lambda conn, w: tenants_queries.list_permissions_by_role(conn, w.tenant_id),
    "tenants.find_user": lambda conn, w: tenants_queries.find_user(conn, w.tenant_id, w.user_id),
    "tenants.list_users": lambda conn, w: tenants_queries.list_users(conn, w.tenant_id, after=None, limit=1000),
    "tenants.set_disabled": lambda conn, w: tenants_queries.set_disabled(conn, w.tenant_id, w.user_id, True),
    "tenants.replace_roles": lambda conn, w: tenants_queries.replace_roles(conn, w.tenant_id, w.user_id, ["sales"]),
    "tenants.list_audit_entries": lambda conn, w: tenants_queries.list_audit_entries(
        conn, w.tenant_id, AuditFilter(Period()), after=None, limit=1000
    ),
    "audit._insert_records": lambda conn, w: audit._insert_records(conn, [w.record]),
    "audit.record_refusals": lambda conn, w: audit.record_refusals(conn, [w.record]),
    "access.tenants_of_email": lambda conn, w: auth_queries.tenants_of_email(conn, "nobody@test"),
    "access.find_user": lambda conn, w: auth_queries.find_user(conn, w.tenant_id, f"{w.user_id}@test"),
    "tenants.insert_roles": lambda conn, w: tenants_queries.insert_roles(conn, w.tenant_id, {"r": ["admin"]}),
    "tenants.insert_user": lambda conn, w: tenants_queries.insert_user(
        conn, tenant_id=w.tenant_id, user_id=uuid4(), email="new@test", password_hash="x", roles=["ops"]
    ),
    "access.find_user_accesses": lambda conn, w: auth_queries.find_user_accesses(conn, [(w.tenant_id, w.user_id)]),
    "access.find_tenant_accesses": lambda conn, w: auth_queries.find_tenant_accesses(conn, [w.tenant_id]),
    "access.list_policies": lambda conn, w: auth_queries.list_policies(conn, [w.tenant_id]),
    "access.put_policies": lambda conn, w: auth_queries.put_policies(conn, w.tenant_id, DEFAULT_POLICIES),
    "currencies.load_currencies": lambda conn, w: currencies.load_currencies(conn),
    "idempotency._find_responses": lambda conn, w: idempotency._find_responses(conn, [w.key]),
    "idempotency._insert_responses": lambda conn, w: idempotency._insert_responses(
        conn, [(w.key, StoredResponse(200, b""))]
    ),
    "idempotency.delete_expired_keys": lambda conn, w: idempotency.delete_expired_keys(conn, 1000),
    "ledger.insert_accounts": lambda conn, w: ledger_queries.insert_accounts(
        conn, w.tenant_id, [Account("NEW", "New", AccountType.ASSET)]
    ),
    "ledger.insert_entries": lambda conn, w: ledger_queries.insert_entries(conn, [w.entry], NOW),
    "ledger.insert_postings": lambda conn, w: ledger_queries.insert_postings(conn, [w.entry], NOW),
    "ledger.list_entries": lambda conn, w: ledger_queries.list_entries(
        conn, w.tenant_id, Period(), after=None, limit=1000
    ),
    "ledger.list_balances": lambda conn, w: ledger_queries.list_balances(conn, w.tenant_id, Period()),
    "balances.lock_balances": lambda conn, w: balances_queries.lock_balances(conn, [(w.tenant_id, "CASH", "BRL")]),
    "balances.lock_balances_of": lambda conn, w: balances_queries.lock_balances_of(conn, [(w.tenant_id, "CASH")]),
    "balances.list_limits": lambda conn, w: balances_queries.list_limits(conn, w.tenant_id, ["CASH"]),
    "balances.find_kept": lambda conn, w: balances_queries.find_kept(conn, [(w.tenant_id, "CASH", "BRL")]),
    "balances.make_balances": lambda conn, w: balances_queries.make_balances(
        conn, [(w.tenant_id, "THEIRS", "BRL")], [(w.tenant_id, w.account)]
    ),
    "balances.save_balances": lambda conn, w: balances_queries.save_balances(conn, [w.balance]),
    "balances.list_running_balances": lambda conn, w: balances_queries.list_running_balances(conn, w.tenant_id, "CASH"),
    "chart.lock_accounts": lambda conn, w: chart_queries.lock_accounts(conn, [(w.tenant_id, "THEIRS")]),
    "chart.add_accounts": lambda conn, w: chart_queries.add_accounts(conn, [(w.tenant_id, w.account)]),
    "chart.save_accounts": lambda conn, w: chart_queries.save_accounts(conn, [(w.tenant_id, w.account)]),
    "chart.find_account": lambda conn, w: chart_queries.find_account(conn, w.tenant_id, "THEIRS"),
    "chart.list_accounts": lambda conn, w: chart_queries.list_accounts(
        conn, w.tenant_id, AccountFilter(prefix="THEIRS"), after=None, limit=1000
    ),
    "exports.measure": lambda conn, w: exports_queries.measure(conn, w.tenant_id, Period()),
    "exports.list_exported_entries": lambda conn, w: exports_queries.list_exported_entries(
        conn, w.tenant_id, Period(), after=None, limit=1000
    ),
    "reports.find_zone": lambda conn, w: reports_queries.find_zone(conn, w.tenant_id),
    "reports.find_cut": lambda conn, w: reports_queries.find_cut(conn, "UTC", effective_before=NOW),
    "reports._fold": lambda conn, w: reports_queries.list_balances_as_of(
        conn, w.tenant_id, "CASH", Cut(NOW, NOW, NOW.date(), LONG_AGO)
    ),
    "reports.list_lines": lambda conn, w: reports_queries.list_lines(
        conn, w.tenant_id, "CASH", "BRL", By.EFFECTIVE, after=Place.before_all(None), end=None, limit=1000
    ),
    "transactions.request_zones": lambda conn, w: transactions_queries.request_zones(conn, [w.tenant_id]),
    "transactions.lock_transactions": lambda conn, w: transactions_queries.lock_transactions(conn, [w.transaction.key]),
    "transactions.find_expired_holds": lambda conn, w: transactions_queries.find_expired_holds(
        conn, {w.tenant_id: ["CASH"]}
    ),
    "transactions.list_due_holds": lambda conn, w: transactions_queries.list_due_holds(conn, 1000),
    "transactions.measure_overdue": lambda conn, w: transactions_queries.measure_overdue(conn),
    "transactions.find_references": lambda conn, w: transactions_queries.find_references(conn, [(w.tenant_id, "r")]),
    "transactions.insert_transactions": lambda conn, w: transactions_queries.insert_transactions(conn, [w.transaction]),
    "transactions.insert_hold_postings": lambda conn, w: transactions_queries.insert_hold_postings(
        conn, [w.transaction]
    ),
    "transactions.insert_accounts_of": lambda conn, w: transactions_queries.insert_accounts_of(conn, [w.transaction]),
    "transactions.save_ended": lambda conn, w: transactions_queries.save_ended(conn, [w.transaction]),
    "transactions.list_transactions": lambda conn, w: transactions_queries.list_transactions(
        conn, w.tenant_id, TransactionFilter(), after=None, limit=1000
    ),
    "transactions._find_rows": lambda conn, w: transactions_queries._find_rows(conn, w.tenant_id, [w.transaction.id]),
    "transactions._with_postings": lambda conn, w: transactions_queries._with_postings(conn, w.tenant_id, []),
    "transactions.insert_notes": lambda conn, w: transactions_queries.insert_notes(conn, [w.note]),
    "transactions.list_notes": lambda conn, w: transactions_queries.list_notes(conn, w.tenant_id, w.transaction.id),
    "transactions.find_existing": lambda conn, w: transactions_queries.find_existing(conn, [w.transaction.key]),
    "events._insert_events": lambda conn, w: outbox._insert_events(conn, [w.sent]),
    "delivery.claim_due_events": lambda conn, w: outbox_queries.claim_due_events(conn, 1000),
    "delivery.unfollowed_since": lambda conn, w: outbox_queries.unfollowed_since(
        conn, "payment.settled", w.told.created_at, {}
    ),
    "delivery.publish_again": lambda conn, w: outbox_queries.publish_again(conn, [w.told]),
    "delivery.mark_published": lambda conn, w: outbox_queries.mark_published(conn, [w.event]),
    "delivery.postpone": lambda conn, w: outbox_queries.postpone(conn, w.event, seconds=1, reason="r"),
    "delivery.measure_backlog": lambda conn, w: outbox_queries.measure_backlog(conn, 1000),
    "delivery.bury": lambda conn, w: outbox_queries.bury(conn, w.event, reason="r"),
    "delivery.list_waiting_events": lambda conn, w: outbox_queries.list_waiting_events(conn, limit=1000),
    "delivery.find_events": lambda conn, w: outbox_queries.find_events(conn, ids=[], aggregate_id=w.payment.id),
    "delivery.find_events_after": lambda conn, w: outbox_queries.find_events_after(
        conn, after=UUID(int=0), since=LONG_AGO, seen=[], tenant_id=None, event_types=[], limit=1000
    ),
    "delivery.make_due": lambda conn, w: outbox_queries.make_due(conn, [w.waiting], again=True),
    "feed.take_reach": lambda conn, w: feed_queries.take_reach(conn),
    "feed.append_written": lambda conn, w: feed_queries.append_written(conn, 0, 2**62),
    "feed.append_older": lambda conn, w: feed_queries.append_older(
        conn, feed_queries.Reach(0, 0, "", UUID(int=0), 0), 1000
    ),
    "feed.move_reach": lambda conn, w: feed_queries.move_reach(conn, 2**62),
    "feed.last_positions": lambda conn, w: feed_queries.last_positions(conn, [w.tenant_id]),
    "feed.first_event": lambda conn, w: feed_queries.first_event(conn, w.tenant_id),
    "feed.find_position": lambda conn, w: feed_queries.find_position(conn, w.tenant_id, w.event.id),
    "feed.find_event": lambda conn, w: feed_queries.find_event(conn, w.tenant_id, w.event.id),
    "feed.is_written": lambda conn, w: feed_queries.is_written(conn, w.tenant_id, w.event.id),
    "feed.read_events": lambda conn, w: feed_queries.read_events(
        conn, w.tenant_id, after=0, wanted=EVERYTHING, limit=1000
    ),
    "feed.read_events_of": lambda conn, w: feed_queries.read_events_of(
        conn, w.tenant_id, w.payment.id, after=0, wanted=EVERYTHING, limit=1000
    ),
    "feed.delete_expired": lambda conn, w: feed_queries.delete_expired(conn, NOW, 1000),
    "feed.measure_lag": lambda conn, w: feed_queries.measure_lag(conn),
    "operations.find_schema_version": lambda conn, w: operations_queries.find_schema_version(conn),
    "operations.list_last_settlements": lambda conn, w: operations_queries.list_last_settlements(conn, 1000),
    "payments.insert_payments": lambda conn, w: payments_queries.insert_payments(conn, [w.new_payment]),
    "payments.lock_payments": lambda conn, w: payments_queries.lock_payments(conn, [(w.tenant_id, w.payment.id)]),
    "payments.save_payments": lambda conn, w: payments_queries.save_payments(conn, [w.moved]),
    "payments.save_annotations": lambda conn, w: payments_queries.save_annotations(conn, [w.moved]),
    "payments.due_expiries": lambda conn, w: payments_queries.due_expiries(conn, 1000),
    "payments.forget_expiries": lambda conn, w: payments_queries.forget_expiries(
        conn, [payments_queries.Expiry(w.tenant_id, w.payment.id)]
    ),
    "listing.list_payments": lambda conn, w: listing.list_payments(
        conn, w.tenant_id, PaymentFilter(), after=None, limit=1000
    ),
    # With two filters of which each has an index.
    "listing._narrowest": lambda conn, w: listing.list_payments(
        conn, w.tenant_id, PaymentFilter((Status.CREATED,), w.payment.customer_ref), after=None, limit=1000
    ),
    "timeline.list_timeline": lambda conn, w: timeline.list_timeline(conn, w.tenant_id, w.payment.id, limit=1000),
    "refunds.find_taken_references": lambda conn, w: refunds_queries.find_taken_references(
        conn, {(w.tenant_id, "theirs")}
    ),
    "refunds.insert_refunds": lambda conn, w: refunds_queries.insert_refunds(conn, [w.refund]),
    "refunds.find_refund": lambda conn, w: refunds_queries.find_refund(conn, w.tenant_id, w.refund.id),
    "refunds.list_refunds": lambda conn, w: refunds_queries.list_refunds(
        conn, w.tenant_id, Period(), payment_id=None, reference=None, after=None, limit=1000
    ),
    "payments.count_payments": lambda conn, w: payments_queries.count_payments(conn),
    "payments.sum_up_counts": lambda conn, w: payments_queries.sum_up_counts(conn),
    "payments.find_payment": lambda conn, w: payments_queries.find_payment(conn, w.tenant_id, w.payment.id),
    "payments.find_payments_of_orders": lambda conn, w: payments_queries.find_payments_of_orders(
        conn, [(w.tenant_id, "order-1")]
    ),
    "orders.lock_orders": lambda conn, w: orders_queries.lock_orders(conn, [(w.tenant_id, "order-1")]),
    "orders.mark_cancelled": lambda conn, w: orders_queries.mark_cancelled(conn, [(w.tenant_id, "order-1")]),
    "tenants.find_suspended_tenants": lambda conn, w: tenants_queries.find_suspended_tenants(conn, [w.tenant_id]),
    "tenants.find_tenants": lambda conn, w: tenants_queries.find_tenants(conn, [w.tenant_id]),
    "tenants.update_tenant": lambda conn, w: tenants_queries.update_tenant(
        conn, w.tenant_id, name="x", plan=None, region=None
    ),
    "tenants.insert_tenant": lambda conn, w: tenants_queries.insert_tenant(
        conn, tenant_id=w.tenant_id, name="x", plan="x", region="x", zone="UTC"
    ),
}

# What the runtime role may not even try, and what writes a row of a tenant that was not named.
_REFUSED = psycopg.errors.InsufficientPrivilege


def functions_with_sql() -> set[str]:
    """Every function that executes something on a connection, wherever somebody added it.

    But for the platform's, those of the audit, which reads every tenant and has a role of its own for that, and those
    of retention, which makes and drops whole tables as their owner.
    """
    found = set()
    for module_info in pkgutil.walk_packages(payments_ledger.__path__, "payments_ledger."):
        if {"postgres", "verify", "retention"} & set(module_info.name.split(".")):
            continue
        module = importlib.import_module(module_info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if (
                inspect.iscoroutinefunction(function)
                and function.__module__ == module.__name__
                and EXECUTES.search(inspect.getsource(function))
            ):
                found.add(f"{module.__name__.removesuffix('.queries').rpartition('.')[2]}.{name}")
    return found


def test_every_query_there_is_has_a_case() -> None:
    assert functions_with_sql() == CASES.keys()


async def snapshot(owner: Database, tenant_id: str) -> dict[str, list[Any]]:
    async with owner.transaction([tenant_id]) as conn:
        return {
            table: await (
                await conn.execute(f"SELECT {table}::text FROM {table} WHERE tenant_id = %s ORDER BY 1", [tenant_id])
            ).fetchall()
            for table in TABLES
        }


@pytest.mark.parametrize("name", CASES)
async def test_without_its_tenant_condition_a_query_sees_and_changes_nothing_of_another_tenant(
    database: Database, owner: Database, api: Api, tenant: str, new_tenant: Callable[[], Awaitable[str]], name: str
) -> None:
    theirs = await new_tenant()
    payment = await settle_a_payment(database, theirs, idempotency_key="k")
    world = World(theirs, payment, UUID(api.add_user(theirs, "ops")))
    before = await snapshot(owner, theirs)
    seen: Any = None
    try:
        async with database.transaction([tenant]) as conn:
            conn.cursor_factory = WithoutTenantCondition
            try:
                seen = await CASES[name](conn, world)
            finally:
                conn.cursor_factory = AsyncCursor
    except (_REFUSED, psycopg.errors.NotNullViolation):
        seen = None
    for trace in (theirs, str(payment.id), str(world.user_id), "corr-test"):
        assert trace not in repr(seen)
    assert await snapshot(owner, theirs) == before


async def test_the_condition_is_really_taken_out(database: Database, tenant: str) -> None:
    """With the condition a wrong tenant finds nothing; without it the named tenant's own rows come back."""
    payment = await settle_a_payment(database, tenant)
    factories: list[tuple[type[AsyncCursor[TupleRow]], UUID | None]] = [
        (AsyncCursor, None),
        (WithoutTenantCondition, payment.id),
    ]
    for factory, found in factories:
        async with database.transaction([tenant]) as conn:
            conn.cursor_factory = factory
            try:
                read = await payments_queries.find_payment(conn, "another", payment.id)
            finally:
                conn.cursor_factory = AsyncCursor
        assert (read.id if read else None) == found
