"""The SQL of balances as of a time, of statements and of reports.

Two folds are kept with the postings: account_totals by the UTC day of recording, and in account_shifted_totals what is
booked on another day. Together they are a table of sums by book date and day of recording. A balance as of a time is
what lies in whole days on both axes, and the postings of at most one day on each.

Backdated postings are found by their effective time, all others by that of their recording, in indexes of their own:
so nobody pays for two orders of the same rows (ADR 41).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from psycopg.rows import dict_row

from payments_ledger.errors import UnknownTenant
from payments_ledger.ledger.accounts import OF_PAYMENTS, AccountType, Side
from payments_ledger.ledger.entry import TRANSACTION_KINDS, Balance
from payments_ledger.ledger.reports.moment import END
from payments_ledger.ledger.reports.statement import By, Line, Place
from payments_ledger.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Cut:
    """What is known before `recorded_before` and effective before `effective_before`; None is no bound.

    `book_day` is the tenant's day that the latter falls on, and begins at `book_day_start`.
    """

    effective_before: datetime | None
    recorded_before: datetime | None
    book_day: date | None
    book_day_start: datetime | None

    @property
    def recorded_day(self) -> date | None:
        """The UTC day that `recorded_before` falls on."""
        return self.recorded_before.date() if self.recorded_before else None

    @property
    def recorded_day_start(self) -> datetime | None:
        """When that day begins."""
        return datetime.combine(self.recorded_day, time.min, UTC) if self.recorded_day else None

    def parameters(self) -> dict[str, datetime | date | None]:
        """What statements call its times and days."""
        return {
            "effective_before": self.effective_before,
            "recorded_before": self.recorded_before,
            "book_day": self.book_day,
            "book_day_start": self.book_day_start,
            "recorded_day": self.recorded_day,
            "recorded_day_start": self.recorded_day_start,
        }

    @property
    def cuts_through_book_day(self) -> bool:
        """Whether a part of `book_day` is wanted."""
        return self.book_day_start is not None and self.book_day_start != self.effective_before

    @property
    def cuts_through_recorded_day(self) -> bool:
        """Whether a part of `recorded_day` is wanted."""
        return self.recorded_day_start is not None and self.recorded_day_start != self.recorded_before


EVERYTHING = Cut(None, None, None, None)


async def find_zone(conn: Connection, tenant_id: str) -> str:
    """The tenant's time zone (IANA)."""
    cursor = await conn.execute("SELECT zone FROM tenants WHERE tenant_id = %s", [tenant_id])
    row = await cursor.fetchone()
    if row is None:
        raise UnknownTenant
    zone: str = row[0]
    return zone


async def find_cut(
    conn: Connection, zone: str, *, effective_before: datetime | None = None, recorded_before: datetime | None = None
) -> Cut:
    """The days are found by PostgreSQL's clocks, which dated the entries."""
    if effective_before is None:
        return Cut(None, recorded_before, None, None)
    cursor = await conn.execute(
        """
        WITH days AS (SELECT (%(instant)s AT TIME ZONE %(zone)s)::date AS day),
             starts AS (SELECT day, day::timestamp AT TIME ZONE %(zone)s AS start FROM days)
        SELECT day,
               -- Where clocks are put back to midnight, the day's first hour comes twice.
               CASE WHEN ((start - interval '1 hour') AT TIME ZONE %(zone)s)::date = day
                    THEN start - interval '1 hour' ELSE start END
        FROM starts
        """,
        {"instant": min(max(effective_before, _EARLIEST), _LATEST), "zone": zone},
    )
    row = await cursor.fetchone()
    assert row is not None
    return Cut(effective_before, recorded_before, *row)


# Beyond these days the calendars of Python and PostgreSQL part, in one zone or another. Nothing was booked there.
_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)


# ----------------------------------------------------------------------------------------------------------------------
# Balances as of a time


async def list_balances_as_of(conn: Connection, tenant_id: str, code: str, cut: Cut) -> list[Balance]:
    """The sums of an account before the cut, for each currency that it ever moved in."""
    return await _fold(conn, tenant_id, [("+", cut)], code=code)


async def list_balances_between(
    conn: Connection, tenant_id: str, start: Cut | None, end: Cut, currency: str | None = None
) -> list[Balance]:
    """The sums of every account that ever moved, of what is before `end` and not before `start`, from one snapshot."""
    subtracted: list[tuple[Literal["+", "-"], Cut]] = [] if start is None else [("-", start)]
    return await _fold(conn, tenant_id, [("+", end), *subtracted], currency=currency)


async def _fold(
    conn: Connection,
    tenant_id: str,
    cuts: Sequence[tuple[Literal["+", "-"], Cut]],
    *,
    code: str | None = None,
    currency: str | None = None,
) -> list[Balance]:
    parts: list[str] = []
    parameters: dict[str, Any] = {"tenant_id": tenant_id, "code": code, "currency": currency}
    for number, (sign, cut) in enumerate(cuts):
        part = " UNION ALL ".join(_before(cut, code))
        for name, value in cut.parameters().items():
            # Each cut has parameters of its own.
            part = part.replace(f"%({name})s", f"%({name}_{number})s")
            parameters[f"{name}_{number}"] = value
        parts.append(f"SELECT account, currency, {sign}debits, {sign}credits FROM ({part}) AS {_SIDE}")  # noqa: S608
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        f"""
        WITH {_SIDE} AS ({" UNION ALL ".join(parts)}), sums AS (
            SELECT account, currency, sum(debits) AS debits, sum(credits) AS credits
            FROM side
            GROUP BY account, currency
        )
        SELECT account.code, account.type, account.is_contra, currency, debits::text, credits::text
        FROM sums
        JOIN accounts AS account ON account.tenant_id = %(tenant_id)s AND account.code = sums.account
        WHERE %(currency)s::text IS NULL OR currency = %(currency)s
        ORDER BY account.code COLLATE "C", currency
        """.encode(),  # noqa: S608
        parameters,
    )
    return [
        Balance(
            row["code"],
            AccountType(row["type"]),
            row["currency"],
            int(row["debits"]),
            int(row["credits"]),
            row["is_contra"],
        )
        for row in await cursor.fetchall()
    ]


def _before(cut: Cut, code: str | None) -> list[str]:
    """What is before the cut: whole days from the folds, the rest of a day on each axis from postings."""
    parts = [_WHOLE_DAYS.format(scope=" AND account = %(code)s" if code else "")]
    if cut.cuts_through_recorded_day:
        parts += _sides(_REST_OF_RECORDED_DAY, code)
    if cut.cuts_through_book_day:
        parts += [*_sides(_REST_OF_BOOK_DAY, code), *_backdated_sides(_BACKDATED_INTO_BOOK_DAY, code)]
    return parts


_SIDE = "side (account, currency, debits, credits)"

# A currency that moved later only has a sum of 0.
_WHOLE_DAYS = """
    SELECT account, currency, CASE WHEN is_before THEN debits ELSE 0 END, CASE WHEN is_before THEN credits ELSE 0 END
    FROM account_totals
    CROSS JOIN LATERAL (
        SELECT day < coalesce(least(%(book_day)s::date, %(recorded_day)s::date), 'infinity')) AS cut (is_before)
    WHERE tenant_id = %(tenant_id)s{scope}
    UNION ALL
    SELECT account, currency, -debits, -credits
    FROM account_shifted_totals
    WHERE tenant_id = %(tenant_id)s{scope}
      AND day < coalesce(least(%(book_day)s::date, %(recorded_day)s::date), 'infinity')
    UNION ALL
    SELECT account, currency, debits, credits
    FROM account_shifted_totals
    WHERE tenant_id = %(tenant_id)s{scope}
      AND book_date < coalesce(%(book_day)s::date, 'infinity') AND day < coalesce(%(recorded_day)s::date, 'infinity')
"""
_BOOK_DATE = "coalesce(book_date, (posted_at AT TIME ZONE 'UTC')::date)"
_REST_OF_RECORDED_DAY = f"""
    posted_at >= %(recorded_day_start)s AND posted_at < %(recorded_before)s
    AND {_BOOK_DATE} < coalesce(%(book_day)s::date, 'infinity')
"""
_REST_OF_BOOK_DAY = f"""
    effective_at IS NULL AND posted_at >= %(book_day_start)s
    AND posted_at < least(%(effective_before)s::timestamptz, %(recorded_before)s::timestamptz)
    AND {_BOOK_DATE} = %(book_day)s
"""
_BACKDATED_INTO_BOOK_DAY = f"""
    effective_at >= %(book_day_start)s AND effective_at < %(effective_before)s
    AND posted_at < coalesce(%(recorded_before)s::timestamptz, 'infinity')
    AND {_BOOK_DATE} = %(book_day)s
"""

# As in the indexes of migration 0018, word for word. Postings between the accounts of payments have one of their own,
# which serves both accounts: each of the two is on one side or the other of every one of them.
_BETWEEN_ACCOUNTS_OF_PAYMENTS = "(debit_account IN ('CASH', 'REVENUE') AND credit_account IN ('CASH', 'REVENUE'))"
_CURRENCIES = """
    currency = ANY (ARRAY(
        SELECT DISTINCT currency FROM account_totals WHERE tenant_id = %(tenant_id)s AND account = %(code)s))
"""
_COLUMNS_OF_SIDE = {
    "debit_account": "debit_account, currency, amount, 0",
    "credit_account": "credit_account, currency, 0, amount",
}


def _sides(condition: str, code: str | None) -> list[str]:
    """What the postings that meet the condition debit and credit, of all accounts or of one."""
    if code is None:
        return [_side(column, condition) for column in _COLUMNS_OF_SIDE]
    found = [
        _side(column, f"{column} = %(code)s AND {_CURRENCIES} AND NOT {_BETWEEN_ACCOUNTS_OF_PAYMENTS} AND {condition}")
        for column in _COLUMNS_OF_SIDE
    ]
    if code in OF_PAYMENTS:
        found.append(_OF_PAYMENTS.format(condition=condition))
    return found


_OF_PAYMENTS = f"""
    SELECT %(code)s, currency, CASE WHEN debit_account = %(code)s THEN amount ELSE 0 END,
           CASE WHEN credit_account = %(code)s THEN amount ELSE 0 END
    FROM ledger_postings
    WHERE tenant_id = %(tenant_id)s AND {_CURRENCIES} AND {_BETWEEN_ACCOUNTS_OF_PAYMENTS} AND {{condition}}
"""  # noqa: S608


def _backdated_sides(condition: str, code: str | None) -> list[str]:
    """As `_sides`, of a condition that names the effective time."""
    of_account = "true" if code is None else _CURRENCIES
    return [
        _side(column, f"{'true' if code is None else f'{column} = %(code)s'} AND {of_account} AND {condition}")
        for column in _COLUMNS_OF_SIDE
    ]


def _side(column: str, condition: str) -> str:
    columns = _COLUMNS_OF_SIDE[column]
    return f"SELECT {columns} FROM ledger_postings WHERE tenant_id = %(tenant_id)s AND {condition}"  # noqa: S608


# ----------------------------------------------------------------------------------------------------------------------
# Statements


async def list_lines(
    conn: Connection,
    tenant_id: str,
    code: str,
    currency: str,
    by: By,
    *,
    after: Place,
    end: datetime | None,
    limit: int,
) -> list[Line]:
    """Up to `limit` lines of the account behind a place and before `end`, in the order of `by`; without balances."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        f"""
        WITH page AS (
            {" UNION ALL ".join(_recorded_lines(code) if by is By.RECORDED else _effective_lines(code))}
            ORDER BY at, posted_at, entry_id, position
            LIMIT %(limit)s
        )
        SELECT page.*, entry.kind, coalesce(entry.subject_id, entry.source_id) AS source_id,
               transaction.description, transaction.reference
        FROM page
        JOIN ledger_entries AS entry
          ON entry.tenant_id = %(tenant_id)s AND entry.posted_at = page.posted_at AND entry.id = page.entry_id
        LEFT JOIN ledger_transactions AS transaction
          ON transaction.tenant_id = %(tenant_id)s AND transaction.id = page.entry_id
        ORDER BY at, page.posted_at, page.entry_id, page.position
        """.encode(),  # noqa: S608
        {
            "tenant_id": tenant_id,
            "code": code,
            "currency": currency,
            "after_at": after.at,
            "after_recorded_at": after.recorded_at,
            "after_id": after.entry_id,
            "after_position": after.position,
            "end": end or END,
            "limit": limit,
        },
    )
    return [_line(row) for row in await cursor.fetchall()]


_OF_ACCOUNT = f"""
    SELECT {{time}} AS at, posted_at, entry_id, position, {{side}} AS side, amount,
           coalesce(effective_at, posted_at) AS effective_at, {_BOOK_DATE} AS book_date
    FROM ledger_postings
    WHERE tenant_id = %(tenant_id)s AND currency = %(currency)s AND {{condition}}
    ORDER BY {{order}}posted_at, entry_id, position
    LIMIT %(limit)s
"""  # noqa: S608


def _lines_of(side: str, condition: str, *, time: str = "posted_at", order: str = "") -> str:
    return f"({_OF_ACCOUNT.format(time=time, order=order, side=side, condition=condition)})"


def _lines(code: str, condition: str) -> list[str]:
    """Lines in the order of their recording, each side from the index that has it."""
    lines = [
        _lines_of(
            f"'{side.value}'",
            f"{side.value}_account = %(code)s AND NOT {_BETWEEN_ACCOUNTS_OF_PAYMENTS} AND {condition}",
        )
        for side in Side
    ]
    if code in OF_PAYMENTS:
        side = "CASE WHEN debit_account = %(code)s THEN 'debit' ELSE 'credit' END"
        lines.append(_lines_of(side, f"{_BETWEEN_ACCOUNTS_OF_PAYMENTS} AND {condition}"))
    return lines


def _recorded_lines(code: str) -> list[str]:
    return _lines(
        code,
        """
        (posted_at, entry_id, position) > (%(after_at)s::timestamptz, %(after_id)s::uuid, %(after_position)s::smallint)
        AND posted_at < %(end)s
        """,
    )


def _effective_lines(code: str) -> list[str]:
    as_recorded = _lines(
        code,
        """
        effective_at IS NULL AND posted_at >= %(after_at)s AND posted_at < %(end)s
        AND (posted_at, posted_at, entry_id, position)
            > (%(after_at)s::timestamptz, %(after_recorded_at)s::timestamptz, %(after_id)s::uuid,
               %(after_position)s::smallint)
        """,
    )
    backdated = [
        _lines_of(
            f"'{side.value}'",
            f"{side.value}_account = %(code)s AND {_BACKDATED_LINES}",
            time="effective_at",
            order="ledger_postings.effective_at, ",
        )
        for side in Side
    ]
    return as_recorded + backdated


_BACKDATED_LINES = """
    effective_at < %(end)s AND (effective_at, posted_at, entry_id, position)
        > (%(after_at)s::timestamptz, %(after_recorded_at)s::timestamptz, %(after_id)s::uuid,
           %(after_position)s::smallint)
"""


def _line(row: dict[str, Any]) -> Line:
    return Line(
        entry_id=row["entry_id"],
        position=row["position"],
        side=Side(row["side"]),
        amount=row["amount"],
        recorded_at=row["posted_at"],
        effective_at=row["effective_at"],
        book_date=row["book_date"],
        source_id=row["source_id"],
        is_transaction=row["kind"] in TRANSACTION_KINDS,
        description=row["description"],
        reference=row["reference"],
    )
