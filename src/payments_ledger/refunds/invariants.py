"""What holds between refunds, their payments, and what is written about them: entries, events, audit rows."""

from payments_ledger.commit.invariants import IDEMPOTENCY_KEYS
from payments_ledger.ledger.invariants import ENTRIES
from payments_ledger.payments.invariants import CURRENCY, PAYMENTS
from payments_ledger.refunds.postings import REFUND
from payments_ledger.verify.invariant import OF_ALL_TENANTS, Invariant, Subject

REFUNDS = Subject(
    "payment_refunds",
    (("tenant_id", "text"), ("id", "uuid")),
    "created_at >= %(since)s",
    f"{OF_ALL_TENANTS} AND created_at >= %(since)s",
)

# Before refunds had rows of their own, the source of a refund's entry was its payment, and its id the refund's.
INVARIANTS = (
    Invariant(
        "refunds_reverse_their_settlement",
        "Each refund reverses so much of its payment's settlement, in one entry, with one event and one audit row.",
        REFUNDS,
        f"""
        SELECT subject.tenant_id, subject.id AS refund_id, subject.payment_id, subject.amount AS expected_amount,
               posted.amount, posted.entries, published.events, audited.rows AS audit_rows,
               posted.entries <> 1 OR posted.is_wrong
               OR published.events <> 1
                  AND coalesce(subject.payment_id >= first_id_of(%(events_since)s::timestamptz), true)
               OR audited.rows <> 1 AND subject.created_at >= coalesce(%(audit_since)s::timestamptz, '-infinity')
                   AS broken
        FROM SUBJECT
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = subject.payment_id
        LEFT JOIN ledger_entries AS settlement
          ON settlement.tenant_id = subject.tenant_id AND settlement.kind = 'settlement'
         AND settlement.source_id = coalesce(payment.capture_id, payment.id)
        LEFT JOIN ledger_postings AS settled
          ON settled.tenant_id = settlement.tenant_id AND settled.posted_at = settlement.posted_at
         AND settled.entry_id = settlement.id
        CROSS JOIN LATERAL (
            SELECT count(*) AS entries, sum(posting.amount) AS amount,
                   coalesce(bool_or(
                       (posting.debit_account, posting.credit_account, posting.amount, posting.currency)
                       IS DISTINCT FROM
                       (settled.credit_account, settled.debit_account, subject.amount, subject.currency)), true)
                       AS is_wrong
            FROM ledger_entries AS entry
            LEFT JOIN ledger_postings AS posting
              ON posting.tenant_id = entry.tenant_id AND posting.posted_at = entry.posted_at
             AND posting.entry_id = entry.id
            WHERE entry.tenant_id = subject.tenant_id AND entry.kind = '{REFUND}'
              AND (entry.source_id = subject.id AND entry.subject_id = subject.payment_id
                   OR entry.source_id = subject.payment_id AND entry.id = subject.id)
        ) AS posted
        CROSS JOIN LATERAL (
            SELECT count(*) AS events
            FROM outbox_events
            WHERE tenant_id = subject.tenant_id AND aggregate_id = subject.payment_id
              AND event_type = 'payment.refunded' AND payload->>'refund_id' = subject.id::text
        ) AS published
        CROSS JOIN LATERAL (
            SELECT count(*) AS rows
            FROM audit_log
            WHERE tenant_id = subject.tenant_id AND target = subject.payment_id::text AND action = 'payment.refund'
              AND coalesce(detail->>'refund_id', subject.id::text) = subject.id::text
        ) AS audited
        """,  # noqa: S608
    ),
    Invariant(
        "refund_entries_have_their_refund",
        "Each entry that gives money back is that of a refund.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.source_id,
               refund.id AS refund_id, refund.id IS NULL AS broken
        FROM SUBJECT
        LEFT JOIN payment_refunds AS refund
          ON refund.tenant_id = subject.tenant_id AND refund.id IN (subject.source_id, subject.id)
         AND refund.payment_id = coalesce(subject.subject_id, subject.source_id)
        """,
        f"kind = '{REFUND}'",
    ),
    Invariant(
        "refunds_add_up",
        "What a payment says was refunded is the sum of its refunds, in its currency, and no more than was settled.",
        PAYMENTS,
        """
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.amount_refunded,
               refunds.amount::text AS expected_amount_refunded,
               coalesce(subject.amount_captured, subject.amount) AS amount_settled,
               subject.amount_refunded <> refunds.amount OR refunds.other_currency
               OR refunds.amount > 0 AND subject.status <> 'SETTLED'
               OR refunds.amount > coalesce(subject.amount_captured, subject.amount) AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(refund.amount), 0) AS amount,
                   coalesce(bool_or(refund.currency <> subject.currency), false) AS other_currency
            FROM payment_refunds AS refund
            WHERE refund.tenant_id = subject.tenant_id AND refund.payment_id = subject.id) AS refunds
        """,
    ),
    Invariant(
        "kept_answers_match_their_refund",
        "Each kept 201 response to a request for a refund shows a refund of its payment, as it is in the books.",
        IDEMPOTENCY_KEYS,
        f"""
        SELECT subject.tenant_id, subject.principal, subject.route, subject.key,
               convert_from(subject.body, 'UTF8') AS answer, refund.id AS refund_id,
               (refund.amount * currency.minor_unit)::text AS expected_amount,
               (answer.id, answer.payment_intent_id, answer.amount, answer.currency, answer.reference, answer.status,
                subject.status, subject.location, lower(subject.route))
               IS DISTINCT FROM
               (refund.id::text, refund.payment_id::text, (refund.amount * currency.minor_unit)::text, refund.currency,
                refund.reference, refund.status, 201, '/v1/refunds/' || refund.id,
                'post /v1/payment-intents/' || refund.payment_id || '/refunds') AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(convert_from(subject.body, 'UTF8')::json)
            AS answer (id text, payment_intent_id text, amount text, currency text, reference text, status text)
        LEFT JOIN payment_refunds AS refund
          ON refund.tenant_id = subject.tenant_id
         AND refund.id = CASE WHEN pg_input_is_valid(answer.id, 'uuid') THEN answer.id::uuid END
        LEFT JOIN {CURRENCY} ON currency.code = refund.currency
        """,  # noqa: S608
        "status BETWEEN 200 AND 299 AND route LIKE 'POST /v1/payment-intents/%%/refunds'",
    ),
)
