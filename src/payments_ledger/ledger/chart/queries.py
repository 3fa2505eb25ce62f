"""The SQL of accounts. Their rows are locked in sorted order, before balances.

Whoever posts holds a share of the lock of an account, as its foreign key would later; whoever makes a balance of it, or
closes it, holds the lock alone. So both see all that was posted, and nothing is posted meanwhile.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from payments_ledger.ledger.accounts import Account, AccountState, AccountType
from payments_ledger.postgres.database import Connection

type AccountKey = tuple[str, str]
"""Tenant and code."""


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts are listed; None, and an empty mapping, is no condition.

    `prefix` is a code: it and those below it. Every pair of `metadata` must be the account's.
    """

    prefix: str | None = None
    type: AccountType | None = None
    state: AccountState | None = None
    owner_ref: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


async def lock_accounts(
    conn: Connection, keys: Collection[AccountKey], *, alone: bool = False
) -> dict[AccountKey, Account]:
    """Those of the accounts that exist, locked until the transaction ends: against closing, or against postings too."""
    strength = sql.SQL("FOR UPDATE" if alone else "FOR KEY SHARE")
    statement = sql.SQL(
        """
        SELECT accounts.*
        FROM accounts
        JOIN unnest(%s::text[]) AS wanted (code) USING (code)
        WHERE tenant_id = %s
        ORDER BY code
        {} OF accounts
        """
    ).format(strength)
    cursors = [
        await conn.cursor(row_factory=dict_row, binary=True).execute(
            statement, [[code for _, code in group], tenant_id]
        )
        for tenant_id, group in groupby(sorted(keys), key=itemgetter(0))
    ]
    rows = [row for cursor in cursors for row in await cursor.fetchall()]
    return {(row["tenant_id"], row["code"]): _account(row) for row in rows}


async def add_accounts(conn: Connection, accounts: Sequence[tuple[str, Account]]) -> None:
    """Adds new accounts to the tenants beside them. Collides with a transaction that added one of them meanwhile."""
    await conn.execute(
        """
        INSERT INTO accounts (tenant_id, code, name, type, id, is_contra, owner_ref, metadata, version, created_at)
        SELECT *
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::boolean[], %s::text[],
                    %s::json[], %s::integer[], %s::timestamptz[])
        ORDER BY 1, 2
        ON CONFLICT (tenant_id, code) DO UPDATE SET version = EXCLUDED.version
            WHERE run_again('the account was added meanwhile')
        """,
        [
            [tenant_id for tenant_id, _ in accounts],
            [account.code for _, account in accounts],
            [account.name for _, account in accounts],
            [account.type.value for _, account in accounts],
            [account.id for _, account in accounts],
            [account.is_contra for _, account in accounts],
            [account.owner_ref for _, account in accounts],
            [json.dumps(dict(account.metadata)) for _, account in accounts],
            [account.version for _, account in accounts],
            [account.created_at for _, account in accounts],
        ],
    )


async def save_accounts(conn: Connection, accounts: Sequence[tuple[str, Account]]) -> None:
    """Writes what can change of accounts that this transaction has locked."""
    await conn.execute(
        """
        UPDATE accounts
        SET name = changed.name, owner_ref = changed.owner_ref, metadata = changed.metadata,
            version = changed.version, closed_at = changed.closed_at
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::json[], %s::integer[], %s::timestamptz[])
             AS changed (tenant_id, code, name, owner_ref, metadata, version, closed_at)
        WHERE accounts.tenant_id = changed.tenant_id AND accounts.code = changed.code
        """,
        [
            [tenant_id for tenant_id, _ in accounts],
            [account.code for _, account in accounts],
            [account.name for _, account in accounts],
            [account.owner_ref for _, account in accounts],
            [json.dumps(dict(account.metadata)) for _, account in accounts],
            [account.version for _, account in accounts],
            [account.closed_at for _, account in accounts],
        ],
    )


async def find_account(conn: Connection, tenant_id: str, code: str) -> Account | None:
    """None if the tenant has no account of this code."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute("SELECT * FROM accounts WHERE tenant_id = %s AND code = %s", [tenant_id, code])
    row = await cursor.fetchone()
    return _account(row) if row else None


async def list_accounts(
    conn: Connection, tenant_id: str, wanted: AccountFilter, *, after: str | None, limit: int
) -> list[Account]:
    """Up to `limit` accounts in byte order of their codes, beginning after a code."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    prefix = wanted.prefix
    await cursor.execute(
        """
        SELECT *
        FROM accounts
        WHERE tenant_id = %(tenant_id)s AND code COLLATE "C" > %(after)s
          AND (%(prefix)s::text IS NULL
               OR code COLLATE "C" >= %(prefix)s AND code COLLATE "C" < %(beyond)s
                  AND (code = %(prefix)s OR starts_with(code, %(below)s)))
          AND (%(type)s::text IS NULL OR type = %(type)s)
          AND (%(state)s::text IS NULL OR (closed_at IS NULL) = (%(state)s = 'open'))
          AND (%(owner_ref)s::text IS NULL OR owner_ref = %(owner_ref)s)
          AND metadata::jsonb @> %(metadata)s::jsonb
        ORDER BY code COLLATE "C"
        LIMIT %(limit)s
        """,
        {
            "tenant_id": tenant_id,
            "after": after or "",
            "prefix": prefix,
            # A.B and all that begins with it is before A.B~, for ~ comes after whatever a code has.
            "beyond": f"{prefix}~",
            "below": f"{prefix}.",
            "type": wanted.type.value if wanted.type else None,
            "state": wanted.state.value if wanted.state else None,
            "owner_ref": wanted.owner_ref,
            "metadata": json.dumps(dict(wanted.metadata)),
            "limit": limit,
        },
    )
    return [_account(row) for row in await cursor.fetchall()]


def _account(row: dict[str, Any]) -> Account:
    return Account(
        code=row["code"],
        name=row["name"],
        type=AccountType(row["type"]),
        is_contra=row["is_contra"],
        owner_ref=row["owner_ref"],
        metadata=row["metadata"],
        id=row["id"],
        version=row["version"],
        created_at=row["created_at"],
        closed_at=row["closed_at"],
    )
