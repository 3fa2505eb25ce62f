"""Balances as of any time, and statements over any time, are what a naive fold over all postings makes of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from payments_ledger.ledger import queries as ledger_queries
from payments_ledger.ledger.accounts import CASH, REVENUE, Account, AccountType, Side
from payments_ledger.ledger.entry import Entry, Posting
from payments_ledger.ledger.reports.moment import Span
from payments_ledger.ledger.reports.report import ReportName
from payments_ledger.ledger.reports.statement import By, Continuation, Line
from payments_ledger.ledger.reports.use_cases import StatementWanted, balances_as_of, make_statement, report
from payments_ledger.money import Money
from payments_ledger.postgres.database import Connection, Database
from payments_ledger.tenants.use_cases import begin_tenant
from tests.integration.books import broken_checks

# In Havana the clocks were put back from 1:00 to midnight on 1 November 2026, in London on 25 October.
START = datetime(2026, 10, 30, tzinfo=UTC)
MINUTES = 4 * 24 * 60
ZONES = ("UTC", "America/Sao_Paulo", "Asia/Tokyo", "America/Havana")
ACCOUNTS = (CASH, REVENUE, "BANK", "WALLET")

# By the quarter of an hour, so that times meet each other and midnights.
minutes = st.integers(0, MINUTES // 15).map(lambda quarters: quarters * 15)
instants = minutes.map(lambda each: START + timedelta(minutes=each))


@dataclass(frozen=True)
class Fact:
    """A posting of one entry, with both its times."""

    debit: str
    credit: str
    currency: str
    amount: int
    recorded_at: datetime
    effective_at: datetime | None

    @property
    def effective(self) -> datetime:
        return self.effective_at or self.recorded_at

    def moves(self, account: str, currency: str) -> int:
        """By how much it debits the account."""
        if currency != self.currency:
            return 0
        return self.amount * ((self.debit == account) - (self.credit == account))


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    debit, credit = draw(st.permutations(ACCOUNTS))[:2]
    recorded_at = draw(instants)
    backdated_by = draw(st.none() | minutes)
    return Fact(
        debit,
        credit,
        draw(st.sampled_from(["BRL", "BRL", "BRL", "JPY"])),
        draw(st.integers(1, 100)),
        recorded_at,
        None if backdated_by is None else recorded_at - timedelta(minutes=backdated_by),
    )


@given(
    zone=st.sampled_from(ZONES),
    book=st.lists(facts(), max_size=25),
    account=st.sampled_from(ACCOUNTS),
    times=st.lists(instants, min_size=2, max_size=2).map(sorted),
    known_at=st.none() | instants,
    by=st.sampled_from(By),
    page_size=st.integers(1, 4),
)
def test_balances_statements_and_reports_are_the_fold_of_the_postings(
    database_url: str,
    zone: str,
    book: list[Fact],
    account: str,
    times: list[datetime],
    known_at: datetime | None,
    by: By,
    page_size: int,
) -> None:
    start, end = times

    async def compare() -> None:
        database = Database(database_url, role=None, pool_size_max=2)
        await database.open()
        try:
            tenant = f"tenant-{uuid4()}"
            async with database.transaction([tenant]) as conn:
                await record(conn, tenant, zone, book)
                found = await balances_as_of(conn, tenant, account, as_of=end, known_at=known_at)
                for currency in ("BRL", "JPY"):
                    await compare_statement(conn, tenant, book, account, currency, start, end, by, page_size)
                trial = await report(conn, tenant, ReportName.TRIAL_BALANCE, Span(start, end))
                await report(conn, tenant, ReportName.BALANCE_SHEET, Span(as_of=end))
        finally:
            await database.close()
        known = [fact for fact in book if fact.effective <= end and (known_at is None or fact.recorded_at <= known_at)]
        assert {each.currency: each.debits_total - each.credits_total for each in found} == {
            currency: sum(fact.moves(account, currency) for fact in known)
            for currency in sorted({fact.currency for fact in book if account in (fact.debit, fact.credit)})
        }
        moved = [fact for fact in book if start <= fact.effective < end]
        assert {(row.account, row.currency): (row.debits, row.credits) for row in trial.rows} == {
            (each, currency): sums
            for each in ACCOUNTS
            for currency in ("BRL", "JPY")
            if (sums := sums_of(moved, each, currency)) != (0, 0)
        }
        # No payment stands behind these settlements, but all else holds.
        assert (await broken_checks(database_url, tenant)).keys() <= {"settlements_have_their_payment"}

    asyncio.run(compare())


def sums_of(book: Sequence[Fact], account: str, currency: str) -> tuple[int, int]:
    debits = sum(fact.amount for fact in book if fact.debit == account and fact.currency == currency)
    return debits, sum(fact.amount for fact in book if fact.credit == account and fact.currency == currency)


async def record(conn: Connection, tenant: str, zone: str, book: Sequence[Fact]) -> None:
    await begin_tenant(conn, tenant_id=tenant, name="x", plan="x", region="x", zone=zone)
    accounts = [Account("BANK", "Bank", AccountType.ASSET), Account("WALLET", "Wallet", AccountType.LIABILITY)]
    await ledger_queries.insert_accounts(conn, tenant, accounts)
    for fact in book:
        posting = Posting(fact.debit, fact.credit, Money(fact.amount, fact.currency))
        # Each is its own payment as far as the ledger is concerned.
        entry = Entry(tenant, uuid7(), "settlement", uuid4(), "corr", (posting,), effective_at=fact.effective_at)
        await ledger_queries.insert_entries(conn, [entry], fact.recorded_at)
        await ledger_queries.insert_postings(conn, [entry], fact.recorded_at)


async def compare_statement(
    conn: Connection,
    tenant: str,
    book: Sequence[Fact],
    account: str,
    currency: str,
    start: datetime,
    end: datetime,
    by: By,
    page_size: int,
) -> None:
    """Its pages are without a gap, in order, and hold what the facts say."""
    sign = 1 if account in (CASH, "BANK") else -1

    def time_of(fact: Fact) -> datetime:
        return fact.effective if by is By.EFFECTIVE else fact.recorded_at

    opening = sign * sum(fact.moves(account, currency) for fact in book if time_of(fact) < start)
    inside = [fact for fact in book if start <= time_of(fact) < end and fact.moves(account, currency)]
    lines: list[Line] = []
    balance = opening
    continued = None
    has_more = True
    while has_more:
        wanted = StatementWanted(account, currency, by, start, end, continued)
        page, has_more = await make_statement(conn, tenant, wanted, page_size)
        assert page.opening == balance
        for line in page.lines:
            balance += line.amount if line.side is page.account.normal_side else -line.amount
            assert line.balance == balance
        assert page.closing == balance
        lines += page.lines
        if has_more:
            text = Continuation(account, lines[-1].place(by), balance).as_text()
            continued = Continuation.read(text, account)
    assert all(one.place(by) < other.place(by) for one, other in pairwise(lines))
    assert sorted((line.effective_at, line.recorded_at, line.side, line.amount) for line in lines) == sorted(
        (
            fact.effective,
            fact.recorded_at,
            Side.DEBIT if fact.debit == account else Side.CREDIT,
            fact.amount,
        )
        for fact in inside
    )
