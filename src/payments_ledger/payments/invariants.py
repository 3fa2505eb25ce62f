"""What holds between a payment and what is written about it: entries, events, audit rows."""

from collections.abc import Iterator

from payments_ledger.commit.invariants import AUDIT_LOG, EVENTS
from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.invariants import ENTRIES
from payments_ledger.payments.events import PAYMENT_REFUNDED
from payments_ledger.payments.lifecycle import MOVES, Move, Status
from payments_ledger.payments.postings import ENTRY_KINDS, SETTLEMENT
from payments_ledger.verify.invariant import OF_ALL_TENANTS, Invariant, Subject

# A payment is settled within a second; a quarter of an hour leaves time for a broker's restart.
AUTHORIZED_SECONDS_MAX = 900

PAYMENTS = Subject(
    "payment_intents",
    (("tenant_id", "text"), ("id", "uuid")),
    "updated_at >= %(since)s",
    f"""(tenant_id, id) IN (
        SELECT tenant_id, aggregate_id FROM outbox_events
        WHERE {OF_ALL_TENANTS} AND id >= first_id_of(%(since)s::timestamptz))""",  # noqa: S608
)


def _histories(*path: Move) -> Iterator[tuple[Move, ...]]:
    """Every legal history that begins with the path; there is no way back, so each is finite."""
    if path:
        yield path
    here = path[-1].after if path else None
    for move in MOVES:
        if move.before is here:
            yield from _histories(*path, move)


# The n-th move (`sequence`) of each legal history, by the `status` and `version` that it ends with.
_LEGAL = "(VALUES {}) AS legal (status, version, sequence, event_type, action)".format(
    ", ".join(
        sorted(
            {
                f"('{history[-1].after}', {len(history)}, {sequence}, '{move.event}', '{move.action}')"
                for history in _histories()
                for sequence, move in enumerate(history, start=1)
            }
        )
    )
)
_EVENT_STATUS = "(VALUES {}) AS meant (event_type, status)".format(
    ", ".join(sorted({f"('{move.event}', '{move.after}')" for move in MOVES}))
    + f", ('{PAYMENT_REFUNDED}', '{Status.SETTLED}')"
)
# The payment's status before and after each action, as its audit row has it.
_AUDITED_MOVES = "(VALUES {}) AS move (action, before, after)".format(
    ", ".join(
        [
            *(f"('{move.action}', {f"'{move.before}'" if move.before else 'NULL'}, '{move.after}')" for move in MOVES),
            f"('payment.refund', '{Status.SETTLED}', '{Status.SETTLED}')",
        ]
    )
)
# A string is read with all its places, and OFFSET keeps the planner from reading it for each row it is joined to.
CURRENCY = "(SELECT code, ('1e-' || exponent)::numeric AS minor_unit FROM currencies OFFSET 0) AS currency"
# As clients and consumers see it. A product is exact and has all the places; a quotient of large amounts is rounded.
AMOUNT = "(payment.amount * currency.minor_unit)::text"

INVARIANTS = (
    Invariant(
        "settled_payments_are_posted_once",
        "Each SETTLED payment has exactly one settlement, over its amount, to the right accounts; no other has one.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status,
               count(entry.id) FILTER (WHERE coalesce(posting.position, 1) = 1) AS entries,
               CASE subject.status WHEN 'SETTLED' THEN 1 ELSE 0 END AS expected_entries,
               sum(posting.amount)::text AS amount, subject.amount::text AS expected_amount,
               min(posting.currency) AS currency, subject.currency AS expected_currency,
               min(posting.debit_account) AS debit_account, '{CASH}' AS expected_debit_account,
               min(posting.credit_account) AS credit_account, '{REVENUE}' AS expected_credit_account,
               CASE subject.status WHEN 'SETTLED' THEN
                   count(entry.id) FILTER (WHERE coalesce(posting.position, 1) = 1) <> 1
                   OR (sum(posting.amount), min(posting.currency), max(posting.currency))
                      IS DISTINCT FROM (subject.amount::numeric, subject.currency, subject.currency)
                   OR bool_or((posting.debit_account, posting.credit_account) <> ('{CASH}', '{REVENUE}'))
               ELSE count(entry.id) > 0 END AS broken
        FROM SUBJECT
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.source_id = subject.id AND entry.kind = '{SETTLEMENT}'
        LEFT JOIN ledger_postings AS posting
          ON posting.tenant_id = entry.tenant_id AND posting.posted_at = entry.posted_at
         AND posting.entry_id = entry.id
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.amount, subject.currency
        """,  # noqa: S608
    ),
    Invariant(
        "entries_have_their_payment",
        "Each settlement and each refund is an entry of a SETTLED payment of its own tenant.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.kind,
               subject.source_id AS payment_id, payment.status, 'SETTLED' AS expected_status,
               payment.status IS DISTINCT FROM 'SETTLED' AS broken
        FROM SUBJECT
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = subject.source_id
        """,
        f"kind IN ({', '.join(f"'{kind}'" for kind in ENTRY_KINDS)})",
    ),
    Invariant(
        "refunds_reverse_their_settlement",
        "Each refund reverses the settlement of its payment, over the same amount, with one event and one audit row.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.source_id AS payment_id,
               refund.amount, settled.amount AS expected_amount, published.events, audited.rows AS audit_rows,
               (refund.debit_account, refund.credit_account, refund.amount, refund.currency)
               IS DISTINCT FROM (settled.credit_account, settled.debit_account, settled.amount, settled.currency)
               OR published.events <> 1
                  AND coalesce(subject.source_id >= first_id_of(%(events_since)s::timestamptz), true)
               OR audited.rows <> 1 AND subject.posted_at >= coalesce(%(audit_since)s::timestamptz, '-infinity')
                   AS broken
        FROM SUBJECT
        LEFT JOIN ledger_postings AS refund
          ON refund.tenant_id = subject.tenant_id AND refund.posted_at = subject.posted_at
         AND refund.entry_id = subject.id
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.source_id = subject.source_id
         AND entry.kind = 'settlement'
        LEFT JOIN ledger_postings AS settled
          ON settled.tenant_id = entry.tenant_id AND settled.posted_at = entry.posted_at
         AND settled.entry_id = entry.id
        CROSS JOIN LATERAL (
            SELECT count(*) AS events
            FROM outbox_events
            WHERE tenant_id = subject.tenant_id AND aggregate_id = subject.source_id
              AND event_type = 'payment.refunded' AND payload->>'refund_id' = subject.id::text
        ) AS published
        CROSS JOIN LATERAL (
            SELECT count(*) AS rows
            FROM audit_log
            WHERE tenant_id = subject.tenant_id AND target = subject.source_id::text AND action = 'payment.refund'
        ) AS audited
        """,
        "kind = 'refund'",
    ),
    Invariant(
        "moves_are_told_without_a_gap",
        "Each payment has one event for each of its moves, numbered from 1, and together they are a legal history.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.version AS expected_events,
               array_agg(event.event_type ORDER BY event.sequence) FILTER (WHERE event.id IS NOT NULL) AS events,
               count(legal.sequence) <> count(event.id)
               OR count(event.id) <> subject.version AND subject.created_at >= kept.since
               OR count(event.id) > subject.version
                   AS broken
        FROM SUBJECT
        CROSS JOIN (SELECT coalesce(%(events_since)s::timestamptz, '-infinity') AS since) AS kept
        LEFT JOIN outbox_events AS event
          ON event.tenant_id = subject.tenant_id AND event.aggregate_id = subject.id
         AND event.event_type <> 'payment.refunded'
        LEFT JOIN {_LEGAL}
          ON legal.status = subject.status AND legal.version = subject.version
         AND legal.sequence = event.sequence AND legal.event_type = event.event_type
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.version, subject.created_at, kept.since
        """,  # noqa: S608
    ),
    Invariant(
        "nothing_waits_too_long",
        "No payment is AUTHORIZED for longer than the bound: the worker settles it.",
        PAYMENTS,
        """
        SELECT subject.tenant_id, subject.id AS payment_id, subject.updated_at AS authorized_at,
               now() - make_interval(secs => %(authorized_seconds_max)s) AS expected_since,
               subject.updated_at < now() - make_interval(secs => %(authorized_seconds_max)s) AS broken
        FROM SUBJECT
        """,
        "status = 'AUTHORIZED'",
        # What has been AUTHORIZED for the bound just now has an event of that age.
        f"""(tenant_id, id) IN (
            SELECT tenant_id, aggregate_id FROM outbox_events
            WHERE {OF_ALL_TENANTS}
              AND id >= first_id_of(%(since)s::timestamptz - make_interval(secs => %(authorized_seconds_max)s))
              AND id < first_id_of(%(until)s::timestamptz - make_interval(secs => %(authorized_seconds_max)s)))""",  # noqa: S608
    ),
    Invariant(
        "changes_are_audited",
        "Each move of each payment has its one row in the audit log.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.version AS expected_rows,
               array_agg(audited.action ORDER BY audited.at) FILTER (WHERE audited.id IS NOT NULL) AS rows,
               count(legal.sequence) <> count(audited.id)
               OR count(audited.id) > subject.version
               OR subject.created_at >= kept.since
                  AND coalesce(bit_or(1 << legal.sequence), 0) <> (1 << subject.version + 1) - 2
               OR subject.updated_at >= kept.since
                  AND count(*) FILTER (WHERE legal.sequence = subject.version) <> 1
                   AS broken
        FROM SUBJECT
        CROSS JOIN (SELECT coalesce(%(audit_since)s::timestamptz, '-infinity') AS since) AS kept
        LEFT JOIN audit_log AS audited
          ON audited.tenant_id = subject.tenant_id AND audited.target = subject.id::text
         AND audited.action = ANY ('{{{",".join(sorted({move.action for move in MOVES}))}}}')
        LEFT JOIN {_LEGAL}
          ON legal.status = subject.status AND legal.version = subject.version AND legal.action = audited.action
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.version, subject.created_at,
                 subject.updated_at, kept.since
        """,  # noqa: S608
    ),
    Invariant(
        "events_match_their_payment",
        "Each event is about a payment of its own tenant, in header, body and key, and states the payment's terms.",
        EVENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS event_id, subject.event_type, subject.aggregate_id AS payment_id,
               subject.payload, subject.headers->>'X-Tenant-Id' AS tenant_in_header,
               meant.status AS expected_status, {AMOUNT} AS expected_amount, payment.currency AS expected_currency,
               payment.customer_ref AS expected_customer_ref, payment.order_id AS expected_order_id,
               payment.id IS NULL
               OR (body.payment_intent_id, body.tenant_id, body.status, body.amount, body.currency, body.customer_ref,
                   body.order_id, subject.headers->>'X-Tenant-Id')
                  IS DISTINCT FROM (subject.aggregate_id::text, subject.tenant_id, meant.status, {AMOUNT},
                                    payment.currency, payment.customer_ref, payment.order_id, subject.tenant_id)
                   AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(subject.payload)
            AS body (payment_intent_id text, tenant_id text, status text, amount text, currency text,
                     customer_ref text, order_id text)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = subject.aggregate_id
        LEFT JOIN {CURRENCY} ON currency.code = payment.currency
        LEFT JOIN {_EVENT_STATUS} ON meant.event_type = subject.event_type
        """,  # noqa: S608
        "event_type LIKE 'payment.%%'",
    ),
    Invariant(
        "audit_rows_have_their_payment",
        "Each audit row about a payment names one of its own tenant, its true amount, and a move that it may make.",
        AUDIT_LOG,
        f"""
        SELECT subject.tenant_id, subject.id AS audit_id, subject.action, subject.target AS expected_payment_id,
               subject.detail, {AMOUNT} || ' ' || payment.currency AS expected_amount,
               payment.id IS NULL OR move.action IS NULL
               OR recorded.amount IS DISTINCT FROM {AMOUNT} || ' ' || payment.currency AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(subject.detail) AS recorded (amount text, before json, after json)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id
         AND payment.id = CASE WHEN pg_input_is_valid(subject.target, 'uuid') THEN subject.target::uuid END
        LEFT JOIN {CURRENCY} ON currency.code = payment.currency
        LEFT JOIN {_AUDITED_MOVES}
          ON move.action = subject.action AND move.after = recorded.after->>'status'
         AND move.before IS NOT DISTINCT FROM recorded.before->>'status'
        """,  # noqa: S608
        "action LIKE 'payment.%%'",
    ),
)
