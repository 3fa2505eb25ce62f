"""What holds between transactions, their entries, events and audit rows, and of the balances that are kept."""

from payments_ledger.commit.invariants import AUDIT_LOG, EVENTS
from payments_ledger.ledger.accounts import OF_PAYMENTS
from payments_ledger.ledger.entry import TRANSACTION_KINDS
from payments_ledger.ledger.invariants import ENTRIES
from payments_ledger.ledger.transactions.events import REVERSED, TYPE_BY_STATUS
from payments_ledger.ledger.transactions.transaction import Status
from payments_ledger.verify.invariant import OF_ALL_TENANTS, Invariant, Subject

# The worker sweeps within a second; a quarter of an hour leaves time for a restart of everything.
OVERDUE_SECONDS_MAX = 900

TRANSACTIONS = Subject(
    "ledger_transactions",
    (("tenant_id", "text"), ("id", "uuid")),
    "greatest(recorded_at, posted_at) >= %(since)s",
    # Reversals have no events of their own, and holds that end are as old as they are.
    f"""(tenant_id, id) IN (
        SELECT tenant_id, id FROM ledger_transactions WHERE {OF_ALL_TENANTS} AND recorded_at >= %(since)s
        UNION ALL
        SELECT tenant_id, aggregate_id FROM outbox_events
        WHERE {OF_ALL_TENANTS} AND id >= first_id_of(%(since)s::timestamptz))""",  # noqa: S608
)
BALANCES = Subject(
    "account_balances",
    (("tenant_id", "text"), ("account", "text"), ("currency", "text")),
    # A row does not say when it was written, and a busy one is written by every batch: the rotation comes to all.
    "true",
    "false",
    # A balance is a sum over days, and over whatever is pending.
    weight=100,
)
ACCOUNTS = Subject(
    "accounts", (("tenant_id", "text"), ("code", "text")), "greatest(created_at, closed_at) >= %(since)s", "false"
)

# The event that says that a transaction is in a status.
_EVENT_OF_STATUS = "(VALUES {}) AS meant (status, event_type)".format(
    ", ".join(f"('{status}', '{type_}')" for status, type_ in TYPE_BY_STATUS.items())
)
_KINDS = ", ".join(f"'{kind}'" for kind in TRANSACTION_KINDS)
_OF_PAYMENTS = ", ".join(f"'{code}'" for code in sorted(OF_PAYMENTS))
# What an account's holds hold of it in a currency, each by its net.
_HELD = """
    SELECT net.currency, sum(greatest(net.debits - net.credits, 0)) AS debits,
           sum(greatest(net.credits - net.debits, 0)) AS credits
    FROM (
        SELECT held.transaction_id, held.currency,
               coalesce(sum(held.amount) FILTER (WHERE held.debit_account = {account}), 0) AS debits,
               coalesce(sum(held.amount) FILTER (WHERE held.credit_account = {account}), 0) AS credits
        FROM ledger_transactions AS hold
        JOIN ledger_hold_postings AS held ON held.tenant_id = hold.tenant_id AND held.transaction_id = hold.id
        WHERE hold.tenant_id = subject.tenant_id AND hold.status = 'PENDING'
          AND {account} IN (held.debit_account, held.credit_account)
        GROUP BY held.transaction_id, held.currency
    ) AS net
    GROUP BY net.currency
"""

INVARIANTS = (
    Invariant(
        "balances_are_within_their_limits",
        "No balance is below its minimum or above its maximum, with all that is pending counted against it.",
        BALANCES,
        """
        SELECT subject.tenant_id, subject.account, subject.currency, sums.available::text, subject.balance_min::text,
               sums.highest::text, subject.balance_max::text,
               coalesce(sums.available < subject.balance_min OR sums.highest > subject.balance_max, false) AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (
            SELECT CASE normal_side WHEN 'credit' THEN credits - debits - pending_debits
                                    ELSE debits - credits - pending_credits END AS available,
                   CASE normal_side WHEN 'credit' THEN credits - debits + pending_credits
                                    ELSE debits - credits + pending_debits END AS highest
        ) AS sums
        """,
    ),
    Invariant(
        "balances_are_the_sums_of_the_books",
        "Each balance that is kept has the sums of its account's totals, and its account's normal side.",
        BALANCES,
        f"""
        SELECT subject.tenant_id, subject.account, subject.currency,
               subject.debits::text, total.debits::text AS expected_debits,
               subject.credits::text, total.credits::text AS expected_credits,
               (subject.debits, subject.credits) IS DISTINCT FROM (total.debits, total.credits)
               OR subject.normal_side IS DISTINCT FROM
                  CASE WHEN (account.type IN ('asset', 'expense')) <> account.is_contra THEN 'debit'
                       ELSE 'credit' END
               OR subject.account IN ({_OF_PAYMENTS}) AS broken
        FROM SUBJECT
        LEFT JOIN accounts AS account ON account.tenant_id = subject.tenant_id AND account.code = subject.account
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(debits), 0) AS debits, coalesce(sum(credits), 0) AS credits
            FROM account_totals
            WHERE tenant_id = subject.tenant_id AND account = subject.account AND currency = subject.currency
        ) AS total
        """,  # noqa: S608
    ),
    Invariant(
        "pending_sums_are_those_of_the_holds",
        "What a balance says is pending is what the PENDING transactions of its account hold, each by its net.",
        BALANCES,
        f"""
        SELECT subject.tenant_id, subject.account, subject.currency,
               subject.pending_debits::text, coalesce(held.debits, 0)::text AS expected_debits,
               subject.pending_credits::text, coalesce(held.credits, 0)::text AS expected_credits,
               (subject.pending_debits, subject.pending_credits)
               IS DISTINCT FROM (coalesce(held.debits, 0), coalesce(held.credits, 0)) AS broken
        FROM SUBJECT
        LEFT JOIN LATERAL ({_HELD.format(account="subject.account")}) AS held ON held.currency = subject.currency
        """,  # noqa: S608
    ),
    Invariant(
        "holds_are_kept_in_balances",
        "Each account of a PENDING transaction has a balance, but for those that payments post to.",
        TRANSACTIONS,
        f"""
        SELECT subject.tenant_id, subject.id AS transaction_id,
               array_agg(DISTINCT side.account) FILTER (WHERE balance.account IS NULL
                                                          AND side.account NOT IN ({_OF_PAYMENTS})) AS accounts,
               count(side.account) = 0
               OR count(*) FILTER (WHERE balance.account IS NULL AND side.account NOT IN ({_OF_PAYMENTS})) > 0
                   AS broken
        FROM SUBJECT
        LEFT JOIN ledger_hold_postings AS held
          ON held.tenant_id = subject.tenant_id AND held.transaction_id = subject.id
        LEFT JOIN LATERAL (VALUES (held.debit_account), (held.credit_account)) AS side (account)
          ON side.account IS NOT NULL
        LEFT JOIN account_balances AS balance
          ON balance.tenant_id = subject.tenant_id AND balance.account = side.account
         AND balance.currency = held.currency
        GROUP BY subject.tenant_id, subject.id
        """,  # noqa: S608
        "status = 'PENDING'",
    ),
    Invariant(
        "holds_end_in_time",
        "No hold is PENDING for long after its time: the worker sweeps it.",
        TRANSACTIONS,
        f"""
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.expires_at,
               now() - make_interval(secs => {OVERDUE_SECONDS_MAX}) AS expected_since,
               subject.expires_at < now() - make_interval(secs => {OVERDUE_SECONDS_MAX}) AS broken
        FROM SUBJECT
        """,  # noqa: S608
        "status = 'PENDING' AND expires_at IS NOT NULL",
        f"expires_at < now() - make_interval(secs => {OVERDUE_SECONDS_MAX})",
    ),
    Invariant(
        "transactions_are_posted_once",
        "Each POSTED transaction has one entry of its kind, a hold over at most what it held; no other has an entry.",
        TRANSACTIONS,
        """
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.status, count(DISTINCT entry.id) AS entries,
               CASE subject.status WHEN 'POSTED' THEN 1 ELSE 0 END AS expected_entries,
               count(DISTINCT entry.id) <> CASE subject.status WHEN 'POSTED' THEN 1 ELSE 0 END
               OR count(entry.id) FILTER (WHERE entry.id <> subject.id OR entry.posted_at <> subject.posted_at
                                             OR entry.kind <> subject.kind) > 0
               OR subject.status = 'POSTED' AND EXISTS (
                   SELECT FROM (
                       SELECT * FROM ledger_hold_postings
                       WHERE tenant_id = subject.tenant_id AND transaction_id = subject.id
                   ) AS held
                   LEFT JOIN ledger_postings AS posting
                     ON posting.tenant_id = subject.tenant_id AND posting.posted_at = subject.posted_at
                    AND posting.entry_id = subject.id AND posting.position = held.position
                   WHERE posting.amount <= held.amount IS NOT TRUE
                      OR (posting.debit_account, posting.credit_account, posting.currency)
                         IS DISTINCT FROM (held.debit_account, held.credit_account, held.currency)) AS broken
        FROM SUBJECT
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.source_id = subject.id
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.posted_at, subject.kind
        """,
    ),
    Invariant(
        "entries_have_their_transaction",
        "Each entry of a transaction or reversal is that of a POSTED transaction of its own tenant, kind and time.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.kind,
               subject.source_id AS transaction_id, posted.status, 'POSTED' AS expected_status,
               (posted.status, posted.kind, posted.posted_at, posted.id)
               IS DISTINCT FROM ('POSTED', subject.kind, subject.posted_at, subject.id) AS broken
        FROM SUBJECT
        LEFT JOIN ledger_transactions AS posted
          ON posted.tenant_id = subject.tenant_id AND posted.id = subject.source_id
        """,
        f"kind IN ({_KINDS})",
    ),
    Invariant(
        "reversals_mirror_their_first",
        "Each reversal mirrors the postings of its first, alone, and is not effective before it.",
        TRANSACTIONS,
        """
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.reverses, others.reversals,
               1 AS expected_reversals,
               first.id IS NULL OR first.status <> 'POSTED' OR subject.effective_at < first.effective_at
               OR others.reversals <> 1
               OR EXISTS (
                   SELECT FROM (
                       SELECT position, debit_account, credit_account, currency, amount FROM ledger_postings
                       WHERE tenant_id = subject.tenant_id AND posted_at = subject.posted_at AND entry_id = subject.id
                   ) AS mirrored
                   FULL JOIN (
                       SELECT position, credit_account, debit_account, currency, amount FROM ledger_postings
                       WHERE tenant_id = subject.tenant_id AND posted_at = first.posted_at AND entry_id = first.id
                   ) AS its (position, debit_account, credit_account, currency, amount)
                     USING (position, debit_account, credit_account, currency, amount)
                   WHERE mirrored IS NULL OR its IS NULL) AS broken
        FROM SUBJECT
        LEFT JOIN ledger_transactions AS first ON first.tenant_id = subject.tenant_id AND first.id = subject.reverses
        CROSS JOIN LATERAL (
            SELECT count(*) AS reversals FROM ledger_transactions
            WHERE tenant_id = subject.tenant_id AND reverses = subject.reverses
        ) AS others
        """,
        "kind = 'reversal'",
    ),
    Invariant(
        "references_are_unique",
        "No two transactions of a tenant have one reference.",
        TRANSACTIONS,
        """
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.reference, count(*) AS transactions,
               1 AS expected_transactions, count(*) <> 1 AS broken
        FROM SUBJECT
        JOIN ledger_transactions AS same
          ON same.tenant_id = subject.tenant_id AND same.reference = subject.reference AND same.reference IS NOT NULL
        GROUP BY subject.tenant_id, subject.id, subject.reference
        """,
        "reference IS NOT NULL",
    ),
    Invariant(
        "transactions_are_listed_under_their_accounts",
        "Each transaction is listed under exactly the accounts that its postings move.",
        TRANSACTIONS,
        """
        SELECT subject.tenant_id, subject.id AS transaction_id, listed.accounts, moved.accounts AS expected_accounts,
               listed.accounts IS DISTINCT FROM moved.accounts AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT side.account ORDER BY side.account) AS accounts
            FROM (
                SELECT debit_account, credit_account FROM ledger_hold_postings
                WHERE tenant_id = subject.tenant_id AND transaction_id = subject.id
                UNION ALL
                SELECT debit_account, credit_account FROM ledger_postings
                WHERE tenant_id = subject.tenant_id AND posted_at = subject.posted_at AND entry_id = subject.id
            ) AS posting
            CROSS JOIN LATERAL (VALUES (debit_account), (credit_account)) AS side (account)
        ) AS moved
        CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT its.account ORDER BY its.account) AS accounts
            FROM unnest(moved.accounts) AS moved_account (code)
            JOIN ledger_transaction_accounts AS its
              ON its.tenant_id = subject.tenant_id AND its.account = moved_account.code
             AND its.recorded_at = subject.recorded_at AND its.transaction_id = subject.id
        ) AS listed
        """,
    ),
    Invariant(
        "transactions_are_told_without_a_gap",
        "Each transaction has one event for what it began as and one for what it became, and one if it was reversed.",
        TRANSACTIONS,
        f"""
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.status,
               array_agg(event.event_type ORDER BY event.sequence) FILTER (WHERE event.id IS NOT NULL) AS events,
               subject.version + count(DISTINCT reversal.id) AS expected_events,
               count(DISTINCT event.id) <> subject.version + count(DISTINCT reversal.id)
               AND coalesce(subject.id >= first_id_of(%(events_since)s::timestamptz), true)
               OR count(event.id) FILTER (
                   WHERE event.sequence = subject.version AND event.event_type <> meant.event_type
                      OR event.sequence = subject.version + 1 AND event.event_type <> '{REVERSED}'
                      OR event.sequence < subject.version AND event.event_type <> '{TYPE_BY_STATUS[Status.PENDING]}'
                      OR event.sequence > subject.version + 1) > 0 AS broken
        FROM SUBJECT
        LEFT JOIN {_EVENT_OF_STATUS} ON meant.status = subject.status
        LEFT JOIN outbox_events AS event
          ON event.tenant_id = subject.tenant_id AND event.aggregate_id = subject.id
        LEFT JOIN ledger_transactions AS reversal
          ON reversal.tenant_id = subject.tenant_id AND reversal.reverses = subject.id
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.version
        """,  # noqa: S608
    ),
    Invariant(
        "transactions_are_audited",
        "What each transaction became has its one row in the audit log.",
        TRANSACTIONS,
        """
        SELECT subject.tenant_id, subject.id AS transaction_id, subject.status, audited.rows,
               meant.rows AS expected_rows,
               audited.rows <> meant.rows
               AND subject.recorded_at >= coalesce(%(audit_since)s::timestamptz, '-infinity') AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (SELECT greatest(subject.version, 1) AS rows) AS meant
        CROSS JOIN LATERAL (
            SELECT count(*) AS rows FROM audit_log
            WHERE tenant_id = subject.tenant_id AND target = subject.id::text
              AND action LIKE 'transaction.%%' AND action <> 'transaction.note'
        ) AS audited
        """,
    ),
    Invariant(
        "transaction_events_match_their_transaction",
        "Each event of a transaction names it and its tenant, in header, body and key, with its kind and reference.",
        EVENTS,
        """
        SELECT subject.tenant_id, subject.id AS event_id, subject.event_type, subject.aggregate_id AS transaction_id,
               subject.payload, subject.headers->>'X-Tenant-Id' AS tenant_in_header,
               posted.id IS NULL
               OR (body.transaction_id, body.tenant_id, body.kind, body.reference, subject.headers->>'X-Tenant-Id')
                  IS DISTINCT FROM (posted.id::text, subject.tenant_id, posted.kind, posted.reference,
                                    subject.tenant_id) AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(subject.payload)
            AS body (transaction_id text, tenant_id text, kind text, reference text)
        LEFT JOIN ledger_transactions AS posted
          ON posted.tenant_id = subject.tenant_id AND posted.id = subject.aggregate_id
        """,
        "event_type LIKE 'ledger.transaction.%%'",
    ),
    Invariant(
        "transaction_audit_rows_have_their_transaction",
        "Each audit row about a transaction names one of its own tenant.",
        AUDIT_LOG,
        """
        SELECT subject.tenant_id, subject.id AS audit_id, subject.action, subject.target AS expected_transaction_id,
               posted.id IS NULL AS broken
        FROM SUBJECT
        LEFT JOIN ledger_transactions AS posted
          ON posted.tenant_id = subject.tenant_id
         AND posted.id = CASE WHEN pg_input_is_valid(subject.target, 'uuid') THEN subject.target::uuid END
        """,
        "action LIKE 'transaction.%%'",
    ),
    Invariant(
        "closed_accounts_are_empty",
        "A closed account has no balance in any currency, and nothing of it is pending.",
        ACCOUNTS,
        f"""
        SELECT subject.tenant_id, subject.code, subject.closed_at, total.currencies, 0 AS expected_currencies,
               total.currencies > 0
               OR EXISTS (SELECT FROM ({_HELD.format(account="subject.code")}) AS held) AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (
            SELECT count(*) AS currencies
            FROM (
                SELECT currency FROM account_totals
                WHERE tenant_id = subject.tenant_id AND account = subject.code
                GROUP BY currency HAVING sum(debits) <> sum(credits)
            ) AS left_over
        ) AS total
        """,  # noqa: S608
        "closed_at IS NOT NULL",
    ),
)
