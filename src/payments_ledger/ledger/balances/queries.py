"""The SQL of running balances. Rows are locked tenant by tenant, in sorted order, after those of their accounts.

A row is made from the totals while nobody can post to its account (chart/queries.py, lock_accounts), so that it misses
no posting; from then on whoever posts to the account finds it.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from psycopg.rows import dict_row

from payments_ledger.ledger.accounts import OF_PAYMENTS, Account, Limit, Side
from payments_ledger.ledger.balances.balance import BalanceKey, RunningBalance
from payments_ledger.postgres.database import Connection


async def lock_balances(conn: Connection, keys: Collection[BalanceKey]) -> dict[BalanceKey, RunningBalance]:
    """Those of the balances that are kept, locked until the transaction ends."""
    cursors = [
        await conn.cursor(row_factory=dict_row, binary=True).execute(
            """
            SELECT account_balances.*
            FROM account_balances
            JOIN unnest(%s::text[], %s::text[]) AS wanted (account, currency) USING (account, currency)
            WHERE tenant_id = %s
            ORDER BY account, currency
            FOR NO KEY UPDATE OF account_balances
            """,
            [accounts, currencies, tenant_id],
        )
        for tenant_id, accounts, currencies in _by_tenant(keys)
    ]
    rows = [row for cursor in cursors for row in await cursor.fetchall()]
    return {(row["tenant_id"], row["account"], row["currency"]): _balance(row) for row in rows}


async def lock_balances_of(conn: Connection, accounts: Collection[tuple[str, str]]) -> dict[BalanceKey, RunningBalance]:
    """All that are kept of the accounts (tenant, code), locked until the transaction ends."""
    cursors = [
        await conn.cursor(row_factory=dict_row, binary=True).execute(
            """
            SELECT *
            FROM account_balances
            WHERE tenant_id = %s AND account = ANY (%s::text[])
            ORDER BY account, currency
            FOR NO KEY UPDATE
            """,
            [tenant_id, [code for _, code in group]],
        )
        for tenant_id, group in groupby(sorted(accounts), key=itemgetter(0))
    ]
    rows = [row for cursor in cursors for row in await cursor.fetchall()]
    return {(row["tenant_id"], row["account"], row["currency"]): _balance(row) for row in rows}


async def list_limits(conn: Connection, tenant_id: str, codes: Collection[str]) -> dict[str, tuple[Limit, ...]]:
    """The limits of those of the accounts that have any, by code, in the order of their currencies."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT *
        FROM account_balances
        WHERE tenant_id = %s AND account = ANY (%s::text[]) AND num_nonnulls(balance_min, balance_max) > 0
        ORDER BY account, currency
        """,
        [tenant_id, list(codes)],
    )
    balances = [_balance(row) for row in await cursor.fetchall()]
    return {
        code: tuple(Limit(balance.currency, balance.minimum, balance.maximum) for balance in group)
        for code, group in groupby(balances, key=lambda balance: balance.account)
    }


async def find_kept(conn: Connection, keys: Collection[BalanceKey]) -> set[BalanceKey]:
    """Which of the balances are kept."""
    cursors = [
        await conn.cursor(binary=True).execute(
            """
            SELECT tenant_id, account, currency
            FROM account_balances
            JOIN unnest(%s::text[], %s::text[]) AS wanted (account, currency) USING (account, currency)
            WHERE tenant_id = %s
            """,
            [accounts, currencies, tenant_id],
        )
        for tenant_id, accounts, currencies in _by_tenant(keys)
    ]
    return {key for cursor in cursors for key in await cursor.fetchall()}


async def make_balances(
    conn: Connection, keys: Collection[BalanceKey], accounts: Iterable[tuple[str, Account]]
) -> None:
    """Keeps these balances from now on, beginning with what the totals say; `accounts` are theirs, with the tenants.

    The transaction must have locked the accounts against postings.
    """
    sides = {(tenant_id, account.code): account.normal_side for tenant_id, account in accounts}
    wanted = [key for key in keys if key[:2] in sides]
    await conn.execute(
        """
        INSERT INTO account_balances
            (tenant_id, account, currency, normal_side, debits, credits, pending_debits, pending_credits, version)
        SELECT tenant_id, account, currency, normal_side, debits, credits, 0, 0, debits + credits
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
             AS wanted (tenant_id, account, currency, normal_side)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(debits), 0) AS debits, coalesce(sum(credits), 0) AS credits
            FROM account_totals AS total
            WHERE total.tenant_id = wanted.tenant_id AND total.account = wanted.account
              AND total.currency = wanted.currency
        ) AS fold
        ORDER BY tenant_id, account, currency
        ON CONFLICT DO NOTHING
        """,
        [
            [tenant_id for tenant_id, _, _ in wanted],
            [account for _, account, _ in wanted],
            [currency for _, _, currency in wanted],
            [sides[tenant_id, account].value for tenant_id, account, _ in wanted],
        ],
    )


async def save_balances(conn: Connection, balances: Sequence[tuple[str, RunningBalance]]) -> None:
    """Writes balances, with their tenants, that this transaction has locked."""
    await conn.execute(
        """
        UPDATE account_balances
        SET debits = changed.debits, credits = changed.credits, pending_debits = changed.pending_debits,
            pending_credits = changed.pending_credits, balance_min = changed.balance_min,
            balance_max = changed.balance_max, version = changed.version
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
                    %s::numeric[], %s::numeric[], %s::numeric[])
             AS changed (tenant_id, account, currency, debits, credits, pending_debits, pending_credits,
                         balance_min, balance_max, version)
        WHERE account_balances.tenant_id = changed.tenant_id AND account_balances.account = changed.account
          AND account_balances.currency = changed.currency
        """,
        [
            [tenant_id for tenant_id, _ in balances],
            [balance.account for _, balance in balances],
            [balance.currency for _, balance in balances],
            [balance.debits for _, balance in balances],
            [balance.credits for _, balance in balances],
            [balance.pending_debits for _, balance in balances],
            [balance.pending_credits for _, balance in balances],
            [balance.minimum for _, balance in balances],
            [balance.maximum for _, balance in balances],
            [balance.version for _, balance in balances],
        ],
    )


async def list_running_balances(conn: Connection, tenant_id: str, code: str) -> list[RunningBalance]:
    """The balances of an account, in the order of their currencies: as they are kept, else summed up.

    What is held by holds whose time is over counts no longer, swept or not. An account that payments post to has no
    row, so its holds are added up as well.
    """
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        WITH holds AS (
            SELECT net.currency, hold.expires_at IS NOT NULL AND hold.expires_at <= now() AS is_over,
                   sum(greatest(net.debits - net.credits, 0)) AS debits,
                   sum(greatest(net.credits - net.debits, 0)) AS credits
            FROM ledger_transactions AS hold
            CROSS JOIN LATERAL (
                SELECT currency,
                       coalesce(sum(amount) FILTER (WHERE debit_account = %(code)s), 0) AS debits,
                       coalesce(sum(amount) FILTER (WHERE credit_account = %(code)s), 0) AS credits
                FROM ledger_hold_postings AS held
                WHERE held.tenant_id = %(tenant_id)s AND held.transaction_id = hold.id
                  AND %(code)s IN (held.debit_account, held.credit_account)
                GROUP BY currency
            ) AS net
            WHERE hold.tenant_id = %(tenant_id)s AND hold.status = 'PENDING'
              AND (%(is_of_payments)s OR hold.expires_at <= now())
            GROUP BY net.currency, is_over
        ), totals AS (
            SELECT currency, sum(debits) AS debits, sum(credits) AS credits
            FROM account_totals
            WHERE tenant_id = %(tenant_id)s AND account = %(code)s
            GROUP BY currency
        ), kept AS (
            SELECT * FROM account_balances WHERE tenant_id = %(tenant_id)s AND account = %(code)s
        )
        SELECT account.code AS account, account.type, account.is_contra, known.currency,
               coalesce(kept.debits, totals.debits, 0) AS debits,
               coalesce(kept.credits, totals.credits, 0) AS credits,
               CASE WHEN kept.account IS NULL THEN coalesce(held.debits, 0)
                    ELSE kept.pending_debits - coalesce(over.debits, 0) END AS pending_debits,
               CASE WHEN kept.account IS NULL THEN coalesce(held.credits, 0)
                    ELSE kept.pending_credits - coalesce(over.credits, 0) END AS pending_credits,
               kept.balance_min, kept.balance_max,
               coalesce(kept.version, coalesce(totals.debits, 0) + coalesce(totals.credits, 0)) AS version,
               kept.account IS NOT NULL AS is_kept
        FROM accounts AS account
        CROSS JOIN (
            SELECT currency FROM totals UNION SELECT currency FROM kept UNION SELECT currency FROM holds
        ) AS known
        LEFT JOIN totals USING (currency)
        LEFT JOIN kept USING (currency)
        LEFT JOIN holds AS held ON held.currency = known.currency AND NOT held.is_over
        LEFT JOIN holds AS over ON over.currency = known.currency AND over.is_over
        WHERE account.tenant_id = %(tenant_id)s AND account.code = %(code)s
        ORDER BY known.currency
        """,
        {"tenant_id": tenant_id, "code": code, "is_of_payments": code in OF_PAYMENTS},
    )
    return [_summed(row) for row in await cursor.fetchall()]


def _by_tenant(keys: Collection[BalanceKey]) -> Iterable[tuple[str, list[str], list[str]]]:
    """For each tenant, in sorted order: accounts and currencies."""
    for tenant_id, group in groupby(sorted(keys), key=itemgetter(0)):
        of_tenant = list(group)
        yield tenant_id, [account for _, account, _ in of_tenant], [currency for _, _, currency in of_tenant]


def _summed(row: dict[str, Any]) -> RunningBalance:
    side = Account(row["account"], "", row["type"], row["is_contra"]).normal_side
    return _balance(row | {"normal_side": side})


def _balance(row: dict[str, Any]) -> RunningBalance:
    return RunningBalance(
        account=row["account"],
        currency=row["currency"],
        normal_side=Side(row["normal_side"]),
        debits=int(row["debits"]),
        credits=int(row["credits"]),
        pending_debits=int(row["pending_debits"]),
        pending_credits=int(row["pending_credits"]),
        minimum=None if row["balance_min"] is None else int(row["balance_min"]),
        maximum=None if row["balance_max"] is None else int(row["balance_max"]),
        version=int(row["version"]),
        is_kept=row.get("is_kept", True),
    )
