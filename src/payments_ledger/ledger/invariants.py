"""What holds in the books, whoever posts to them. No invariant here knows what an entry is about."""

from collections.abc import Collection

import iso4217

from payments_ledger.ledger.accounts import DEFAULT_ACCOUNTS
from payments_ledger.verify.invariant import OF_ALL_TENANTS, Invariant, Subject

ENTRIES = Subject(
    "ledger_entries",
    (("tenant_id", "text"), ("posted_at", "timestamptz"), ("id", "uuid")),
    "posted_at >= %(since)s",
    f"{OF_ALL_TENANTS} AND posted_at >= %(since)s",
)
POSTINGS = Subject(
    "ledger_postings",
    (("tenant_id", "text"), ("posted_at", "timestamptz"), ("entry_id", "uuid"), ("position", "smallint")),
    "posted_at >= %(since)s",
    f"{OF_ALL_TENANTS} AND posted_at >= %(since)s",
)
TOTALS = Subject(
    "account_totals",
    (("tenant_id", "text"), ("account", "text"), ("currency", "text"), ("day", "date")),
    "day >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date",
    # Today's totals change with every batch, and each examination sums the whole day.
    "false",
    # A total is the sum of a day's postings, of which there may be a million.
    weight=100,
)
# A few rows that only migrations write: there are no recent ones.
CURRENCIES = Subject("currencies", (("code", "text"),), "false", "false")

_LIBRARY = "(VALUES {}) AS library (code, exponent)".format(
    ", ".join(f"('{listed.code}', {listed.exponent})" for listed in iso4217.Currency if listed.exponent is not None)
)
_CATALOGUE = "(VALUES {}) AS catalogue (code, type)".format(
    ", ".join(f"('{account.code}', '{account.type}')" for account in DEFAULT_ACCOUNTS)
)


def entries_have_a_declared_kind(kinds: Collection[str]) -> Invariant:
    """The ledger takes any kind of entry; `kinds` are those that some module declares."""
    return Invariant(
        "entries_have_a_declared_kind",
        "Each entry is of a kind that some part of the program posts.",
        ENTRIES,
        f"""
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.kind,
               '{", ".join(sorted(kinds))}' AS expected_kinds,
               subject.kind NOT IN ({", ".join(f"'{kind}'" for kind in sorted(kinds))}) AS broken
        FROM SUBJECT
        """,  # noqa: S608
    )


INVARIANTS = (
    Invariant(
        "entries_have_postings",
        "Every entry has postings, numbered from 1 without a gap; a posting debits what it credits, so it balances.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, count(posting.position) AS postings,
               coalesce(max(posting.position), 1) AS expected_postings,
               count(posting.position) IS DISTINCT FROM max(posting.position) AS broken
        FROM SUBJECT
        LEFT JOIN ledger_postings AS posting
          ON posting.tenant_id = subject.tenant_id AND posting.posted_at = subject.posted_at
         AND posting.entry_id = subject.id
        GROUP BY subject.tenant_id, subject.posted_at, subject.id
        """,
    ),
    Invariant(
        "postings_are_accounted_for",
        "Every posting belongs to an entry of its tenant, and both its accounts have totals for its currency and day.",
        POSTINGS,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.entry_id, subject.position,
               entry.id IS NOT NULL AS has_entry, debit.day IS NOT NULL AS has_debit_total,
               credit.day IS NOT NULL AS has_credit_total,
               entry.id IS NULL OR debit.day IS NULL OR credit.day IS NULL AS broken
        FROM SUBJECT
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.posted_at = subject.posted_at
         AND entry.id = subject.entry_id
        LEFT JOIN account_totals AS debit
          ON debit.tenant_id = subject.tenant_id AND debit.account = subject.debit_account
         AND debit.currency = subject.currency AND debit.day = (subject.posted_at AT TIME ZONE 'UTC')::date
        LEFT JOIN account_totals AS credit
          ON credit.tenant_id = subject.tenant_id AND credit.account = subject.credit_account
         AND credit.currency = subject.currency AND credit.day = (subject.posted_at AT TIME ZONE 'UTC')::date
        """,
    ),
    Invariant(
        "totals_are_the_fold_of_the_postings",
        "The totals of each account, currency and UTC day are the sums of its postings.",
        TOTALS,
        """
        WITH subject AS MATERIALIZED (SELECT * FROM SUBJECT), fold AS (
            SELECT tenant_id, account, currency, day, sum(debit) AS debits, sum(credit) AS credits
            FROM (
                SELECT tenant_id, debit_account, credit_account, currency,
                       (posted_at AT TIME ZONE 'UTC')::date AS day, sum(amount) AS amount
                FROM ledger_postings
                WHERE tenant_id = ANY (ARRAY(SELECT DISTINCT tenant_id FROM subject))
                  AND posted_at >= (SELECT min(day) FROM subject)::timestamp AT TIME ZONE 'UTC'
                  AND posted_at < ((SELECT max(day) FROM subject) + 1)::timestamp AT TIME ZONE 'UTC'
                GROUP BY tenant_id, debit_account, credit_account, currency, day
            ) AS posted
            CROSS JOIN LATERAL (
                VALUES (debit_account, amount, 0), (credit_account, 0, amount)
            ) AS side (account, debit, credit)
            GROUP BY tenant_id, account, currency, day
        )
        SELECT subject.tenant_id, subject.account, subject.currency, subject.day,
               subject.debits::text AS debits, coalesce(fold.debits, 0)::text AS expected_debits,
               subject.credits::text AS credits, coalesce(fold.credits, 0)::text AS expected_credits,
               (subject.debits, subject.credits) IS DISTINCT FROM (fold.debits, fold.credits) AS broken
        FROM subject
        LEFT JOIN fold USING (tenant_id, account, currency, day)
        """,
    ),
    Invariant(
        "totals_have_their_account",
        "The account of each total exists, and is of the type that the catalogue gives it, if it lists it.",
        TOTALS,
        f"""
        SELECT subject.tenant_id, subject.account, subject.currency, subject.day, account.type,
               catalogue.type AS expected_type,
               account.code IS NULL OR account.type <> catalogue.type IS TRUE AS broken
        FROM SUBJECT
        LEFT JOIN accounts AS account ON account.tenant_id = subject.tenant_id AND account.code = subject.account
        LEFT JOIN {_CATALOGUE} ON catalogue.code = subject.account
        """,  # noqa: S608
    ),
    Invariant(
        "currencies_have_the_places_of_the_standard",
        "Each currency has the decimal places that this program's edition of ISO 4217 gives it, if it still lists it.",
        CURRENCIES,
        f"""
        SELECT subject.code, subject.exponent, library.exponent AS expected_exponent,
               coalesce(subject.exponent <> library.exponent, false) AS broken
        FROM SUBJECT
        LEFT JOIN {_LIBRARY} ON library.code = subject.code
        """,  # noqa: S608
    ),
)
