"""What holds between the two times of entries, their postings, and the fold of what is booked on another day."""

from payments_ledger.ledger.invariants import ENTRIES, POSTINGS
from payments_ledger.verify.invariant import Invariant, Subject

SHIFTED_TOTALS = Subject(
    "account_shifted_totals",
    (("tenant_id", "text"), ("account", "text"), ("currency", "text"), ("book_date", "date"), ("day", "date")),
    "day >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date",
    # As with account_totals: those of today change with every batch.
    "false",
    weight=100,
)

INVARIANTS = (
    Invariant(
        "entries_are_booked_on_their_day",
        "The book date of each entry is the date of its effective time in the tenant's zone.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.effective_at, subject.book_date,
               booked.date AS expected_book_date,
               -- A process of before, which knows no zones, dates by the UTC day.
               coalesce(subject.book_date, (subject.posted_at AT TIME ZONE 'UTC')::date) <> booked.date
               AND num_nonnulls(subject.effective_at, subject.book_date) > 0 AS broken
        FROM SUBJECT
        JOIN tenants ON tenants.tenant_id = subject.tenant_id
        CROSS JOIN LATERAL (
            SELECT (coalesce(subject.effective_at, subject.posted_at) AT TIME ZONE tenants.zone)::date
        ) AS booked (date)
        """,
    ),
    Invariant(
        "postings_have_the_times_of_their_entry",
        "Each posting is effective and booked as its entry is.",
        POSTINGS,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.entry_id, subject.position,
               subject.effective_at, entry.effective_at AS expected_effective_at,
               subject.book_date, entry.book_date AS expected_book_date,
               (subject.effective_at, subject.book_date)
                   IS DISTINCT FROM (entry.effective_at, entry.book_date) AS broken
        FROM SUBJECT
        JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.posted_at = subject.posted_at
         AND entry.id = subject.entry_id
        """,
    ),
    Invariant(
        "postings_booked_on_another_day_are_accounted_for",
        "Both accounts of a posting that is booked on another day than it was recorded have sums for these days.",
        POSTINGS,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.entry_id, subject.position,
               debit.day IS NOT NULL AS has_debit_total, credit.day IS NOT NULL AS has_credit_total,
               debit.day IS NULL OR credit.day IS NULL AS broken
        FROM SUBJECT
        LEFT JOIN account_shifted_totals AS debit
          ON debit.tenant_id = subject.tenant_id AND debit.account = subject.debit_account
         AND debit.currency = subject.currency AND debit.book_date = subject.book_date
         AND debit.day = (subject.posted_at AT TIME ZONE 'UTC')::date
        LEFT JOIN account_shifted_totals AS credit
          ON credit.tenant_id = subject.tenant_id AND credit.account = subject.credit_account
         AND credit.currency = subject.currency AND credit.book_date = subject.book_date
         AND credit.day = (subject.posted_at AT TIME ZONE 'UTC')::date
        """,
        where="book_date IS NOT NULL",
    ),
    Invariant(
        "shifted_totals_are_the_fold_of_the_postings",
        "The sums of what is booked on another day are those of its postings, by book date and UTC day of recording.",
        SHIFTED_TOTALS,
        """
        WITH subject AS MATERIALIZED (SELECT * FROM SUBJECT), fold AS (
            SELECT tenant_id, account, currency, book_date, day, sum(debit) AS debits, sum(credit) AS credits
            FROM (
                SELECT tenant_id, debit_account, credit_account, currency, book_date,
                       (posted_at AT TIME ZONE 'UTC')::date AS day, sum(amount) AS amount
                FROM ledger_postings
                WHERE tenant_id = ANY (ARRAY(SELECT DISTINCT tenant_id FROM subject))
                  AND posted_at >= (SELECT min(day) FROM subject)::timestamp AT TIME ZONE 'UTC'
                  AND posted_at < ((SELECT max(day) FROM subject) + 1)::timestamp AT TIME ZONE 'UTC'
                  AND book_date IS NOT NULL
                GROUP BY tenant_id, debit_account, credit_account, currency, book_date, day
            ) AS posted
            CROSS JOIN LATERAL (
                VALUES (debit_account, amount, 0), (credit_account, 0, amount)
            ) AS side (account, debit, credit)
            GROUP BY tenant_id, account, currency, book_date, day
        )
        SELECT subject.tenant_id, subject.account, subject.currency, subject.book_date, subject.day,
               subject.debits::text AS debits, coalesce(fold.debits, 0)::text AS expected_debits,
               subject.credits::text AS credits, coalesce(fold.credits, 0)::text AS expected_credits,
               (subject.debits, subject.credits) IS DISTINCT FROM (fold.debits, fold.credits) AS broken
        FROM subject
        LEFT JOIN fold USING (tenant_id, account, currency, book_date, day)
        """,
    ),
    Invariant(
        "entries_are_effective_as_their_transaction",
        "The entry of each transaction is effective when the transaction is.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id,
               coalesce(subject.effective_at, subject.posted_at) AS effective_at,
               transaction.effective_at AS expected_effective_at,
               coalesce(subject.effective_at, subject.posted_at) <> transaction.effective_at AS broken
        FROM SUBJECT
        JOIN ledger_transactions AS transaction
          ON transaction.tenant_id = subject.tenant_id AND transaction.id = subject.id
        """,
    ),
)
