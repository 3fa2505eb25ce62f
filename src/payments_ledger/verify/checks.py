"""The catalogue of what must hold, each as one SQL query that finds the rows for which it does not.

Each query selects `examined` (how many things were looked at) and `failures` (a JSON array of at most FAILURES_SHOWN
objects that say which row, what was found and what was expected). The parameters of all: `tenant_id` (NULL: all
tenants), `since` (NULL: from the beginning), `authorized_seconds_max`.
"""

from dataclasses import dataclass

FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Check:
    """An invariant: its name, what it says in one sentence, and the query over `scope` (examined) and `broken`."""

    name: str
    statement: str
    scope: str
    broken: str

    @property
    def query(self) -> str:
        # All parts are constants of this file.
        return f"""
            WITH scope AS MATERIALIZED ({self.scope}), broken AS ({self.broken})
            SELECT (SELECT count(*) FROM scope) AS examined,
                   (SELECT count(*) FROM broken) AS broken,
                   coalesce((SELECT json_agg(shown) FROM (SELECT * FROM broken LIMIT {FAILURES_SHOWN}) AS shown), '[]')
                       AS failures
        """  # noqa: S608


PAYMENTS = """
    SELECT * FROM payment_intents
    WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR updated_at >= %(since)s)
"""
ENTRIES = """
    SELECT * FROM ledger_entries
    WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR posted_at >= %(since)s)
"""

CHECKS = (
    Check(
        "entries_have_postings",
        "Every entry has postings, numbered from 1 without a gap; a posting debits what it credits, so it balances.",
        ENTRIES,
        """
        SELECT scope.tenant_id, scope.id AS entry_id, count(posting.position) AS postings,
               max(posting.position) AS last_position
        FROM scope
        LEFT JOIN ledger_postings AS posting
          ON posting.tenant_id = scope.tenant_id AND posting.posted_at = scope.posted_at
         AND posting.entry_id = scope.id
        GROUP BY scope.tenant_id, scope.id
        HAVING count(posting.position) = 0 OR count(posting.position) <> max(posting.position)
        """,
    ),
    Check(
        "totals_are_the_fold_of_the_postings",
        "The totals of each account, currency and UTC day are the sums of its postings.",
        """
        SELECT tenant_id, account, currency, day, sum(debit) AS debits, sum(credit) AS credits
        FROM (
            SELECT tenant_id, debit_account AS account, currency, (posted_at AT TIME ZONE 'UTC')::date AS day,
                   amount AS debit, 0 AS credit
            FROM ledger_postings
            UNION ALL
            SELECT tenant_id, credit_account, currency, (posted_at AT TIME ZONE 'UTC')::date, 0, amount
            FROM ledger_postings
        ) AS side
        WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
          AND (%(since)s::timestamptz IS NULL OR day >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date)
        GROUP BY tenant_id, account, currency, day
        """,
        """
        SELECT tenant_id, account, currency, day, kept.debits::text, kept.credits::text,
               scope.debits::text AS expected_debits, scope.credits::text AS expected_credits
        FROM scope
        FULL JOIN (
            SELECT * FROM account_totals
            WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
              AND (%(since)s::timestamptz IS NULL OR day >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date)
        ) AS kept USING (tenant_id, account, currency, day)
        WHERE (scope.debits, scope.credits) IS DISTINCT FROM (kept.debits, kept.credits)
        """,
    ),
    Check(
        "settled_payments_are_posted_once",
        "Each SETTLED payment has exactly one settlement entry over its amount; no other payment has one.",
        PAYMENTS,
        """
        SELECT scope.tenant_id, scope.id AS payment_id, scope.status, scope.amount AS expected_amount,
               posted.entries, posted.amount
        FROM scope
        LEFT JOIN (
            SELECT entry.tenant_id, entry.source_id, count(DISTINCT entry.id) AS entries,
                   sum(posting.amount) AS amount, min(posting.currency) AS currency
            FROM ledger_entries AS entry
            JOIN ledger_postings AS posting
              ON posting.tenant_id = entry.tenant_id AND posting.posted_at = entry.posted_at
             AND posting.entry_id = entry.id
            WHERE entry.kind = 'settlement'
            GROUP BY entry.tenant_id, entry.source_id
        ) AS posted ON posted.tenant_id = scope.tenant_id AND posted.source_id = scope.id
        WHERE CASE WHEN scope.status = 'SETTLED'
                   THEN (posted.entries, posted.amount, posted.currency)
                        IS DISTINCT FROM (1, scope.amount::numeric, scope.currency)
                   ELSE posted.entries IS NOT NULL END
        """,
    ),
    Check(
        "entries_have_their_payment",
        "Each entry tells of a SETTLED payment of its own tenant.",
        ENTRIES,
        """
        SELECT scope.tenant_id, scope.id AS entry_id, scope.kind, scope.source_id, payment.status
        FROM scope
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = scope.tenant_id AND payment.id = scope.source_id
        WHERE payment.status IS DISTINCT FROM 'SETTLED'
        """,
    ),
    Check(
        "refunds_reverse_their_settlement",
        "Each refund reverses the settlement of its payment, over the same amount, and is told by one event.",
        ENTRIES + " AND kind = 'refund'",
        """
        SELECT scope.tenant_id, scope.id AS entry_id, scope.source_id AS payment_id, refund.amount,
               settled.amount AS expected_amount, told.events
        FROM scope
        LEFT JOIN ledger_postings AS refund
          ON refund.tenant_id = scope.tenant_id AND refund.posted_at = scope.posted_at AND refund.entry_id = scope.id
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = scope.tenant_id AND entry.source_id = scope.source_id AND entry.kind = 'settlement'
        LEFT JOIN ledger_postings AS settled
          ON settled.tenant_id = entry.tenant_id AND settled.posted_at = entry.posted_at
         AND settled.entry_id = entry.id
        CROSS JOIN LATERAL (
            SELECT count(*) AS events
            FROM outbox_events
            WHERE tenant_id = scope.tenant_id AND aggregate_id = scope.source_id AND event_type = 'payment.refunded'
        ) AS told
        WHERE (refund.debit_account, refund.credit_account, refund.amount, refund.currency)
              IS DISTINCT FROM (settled.credit_account, settled.debit_account, settled.amount, settled.currency)
           OR told.events <> 1
        """,
    ),
    Check(
        "moves_are_told_without_a_gap",
        "Each payment has one event for each of its moves, numbered from 1, the last one telling of its status.",
        PAYMENTS,
        """
        SELECT scope.tenant_id, scope.id AS payment_id, scope.status, scope.version AS expected_events, told.events
        FROM scope
        LEFT JOIN (
            SELECT tenant_id, aggregate_id, array_agg(event_type ORDER BY sequence) AS events,
                   array_agg(sequence ORDER BY sequence) AS sequences,
                   array_agg(payload->>'status' ORDER BY sequence) AS statuses
            FROM outbox_events
            WHERE event_type <> 'payment.refunded'
            GROUP BY tenant_id, aggregate_id
        ) AS told ON told.tenant_id = scope.tenant_id AND told.aggregate_id = scope.id
        WHERE told.sequences IS DISTINCT FROM ARRAY(SELECT generate_series(1, scope.version))
           OR told.statuses[1] <> 'CREATED'
           OR told.statuses[scope.version] <> scope.status
           OR (scope.status = 'SETTLED' AND told.statuses <> '{CREATED,AUTHORIZED,SETTLED}')
        """,
    ),
    Check(
        "nothing_waits_too_long",
        "No payment is AUTHORIZED for longer than the bound: the worker settles it.",
        PAYMENTS + " AND status = 'AUTHORIZED'",
        """
        SELECT tenant_id, id AS payment_id, updated_at AS authorized_at
        FROM scope
        WHERE updated_at < now() - make_interval(secs => %(authorized_seconds_max)s)
        """,
    ),
    Check(
        "kept_answers_match_their_payment",
        "Each kept 2xx answer of a payment route shows a payment of its tenant with the same amount and reference.",
        """
        SELECT *, convert_from(body, 'UTF8')::json AS answer
        FROM idempotency_keys
        WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
          AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
          AND status BETWEEN 200 AND 299 AND route LIKE 'POST /v1/payment-intents%%'
        """,
        """
        SELECT scope.tenant_id, scope.principal, scope.route, scope.key, scope.answer
        FROM scope
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = scope.tenant_id AND payment.id = (scope.answer->>'id')::uuid
        WHERE payment.id IS NULL
           OR payment.customer_ref <> scope.answer->>'customer_ref'
           OR payment.currency <> scope.answer->>'currency'
           OR payment.amount::text <> ltrim(replace(scope.answer->>'amount', '.', ''), '0')
        """,
    ),
    Check(
        "changes_are_audited",
        "Each move of each payment has its row in the audit log.",
        PAYMENTS,
        """
        SELECT scope.tenant_id, scope.id AS payment_id, scope.version AS expected_rows,
               coalesce(audited.rows, 0) AS rows
        FROM scope
        LEFT JOIN (
            SELECT tenant_id, target, count(*) AS rows
            FROM audit_log
            WHERE action IN ('payment.create', 'payment.authorize', 'payment.settle', 'payment.fail', 'payment.cancel')
            GROUP BY tenant_id, target
        ) AS audited ON audited.tenant_id = scope.tenant_id AND audited.target = scope.id::text
        WHERE audited.rows IS DISTINCT FROM scope.version
        """,
    ),
    Check(
        "tenants_never_meet",
        "Each event tells of a payment of its own tenant, in its header, its body and its key.",
        """
        SELECT * FROM outbox_events
        WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
          AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
        """,
        """
        SELECT scope.tenant_id, scope.id AS event_id, scope.event_type, scope.aggregate_id,
               scope.payload->>'tenant_id' AS tenant_in_body, scope.headers->>'X-Tenant-Id' AS tenant_in_header
        FROM scope
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = scope.tenant_id AND payment.id = scope.aggregate_id
        WHERE payment.id IS NULL
           OR scope.payload->>'payment_intent_id' IS DISTINCT FROM scope.aggregate_id::text
           OR scope.payload->>'tenant_id' IS DISTINCT FROM scope.tenant_id
           OR scope.headers->>'X-Tenant-Id' IS DISTINCT FROM scope.tenant_id
        """,
    ),
)
