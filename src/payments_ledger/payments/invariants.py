"""What holds between a payment and what is written about it: entries, events, audit rows."""

from collections.abc import Iterator

from payments_ledger.commit.invariants import AUDIT_LOG, EVENTS
from payments_ledger.ledger.accounts import CASH, REVENUE
from payments_ledger.ledger.invariants import ENTRIES
from payments_ledger.payments.lifecycle import CAPTURE, FACTS, MOVES, PAYMENT_SETTLED, REFUND, Fact, Move, Status
from payments_ledger.payments.postings import SETTLEMENT
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


def _histories(*path: Move | Fact) -> Iterator[tuple[Move | Fact, ...]]:
    """Every legal history that begins with the path, without refunds, which come last; there is no way back."""
    if path:
        yield path
    is_captured = CAPTURE in path
    here = _status_after(path[-1]) if path else None
    if here is CAPTURE.status and not is_captured:
        yield from _histories(*path, CAPTURE)
    for move in MOVES:
        # What was captured is settled.
        if move.before is here and (not is_captured or move.after is Status.SETTLED):
            yield from _histories(*path, move)


def _status_after(step: Move | Fact) -> Status:
    return step.status if isinstance(step, Fact) else step.after


# The n-th step (`sequence`) of each legal history, by the `status` that it ends with and its number of `steps`.
_LEGAL = "(VALUES {}) AS legal (status, steps, sequence, event_type, action)".format(
    ", ".join(
        sorted(
            {
                f"('{_status_after(history[-1])}', {len(history)}, {sequence}, '{step.event}', '{step.action}')"
                for history in _histories()
                for sequence, step in enumerate(history, start=1)
            }
        )
    )
)
# The steps of a payment are its moves and its capture: all that raised its version but the refunds.
_STEPS = """(
            SELECT subject.version - count(*) AS steps
            FROM payment_refunds AS refund
            WHERE refund.tenant_id = subject.tenant_id AND refund.payment_id = subject.id
        )"""
_EVENT_STATUS = "(VALUES {}) AS meant (event_type, status)".format(
    ", ".join(
        sorted(
            {f"('{move.event}', '{move.after}')" for move in MOVES}
            | {f"('{fact.event}', '{fact.status}')" for fact in FACTS}
        )
    )
)
# The payment's status before and after each action, as its audit row has it.
_AUDITED_MOVES = "(VALUES {}) AS move (action, before, after)".format(
    ", ".join(
        [
            *(f"('{move.action}', {f"'{move.before}'" if move.before else 'NULL'}, '{move.after}')" for move in MOVES),
            *(f"('{fact.action}', '{fact.status}', '{fact.status}')" for fact in FACTS),
        ]
    )
)
# A string is read with all its places, and OFFSET keeps the planner from reading it for each row it is joined to.
CURRENCY = "(SELECT code, ('1e-' || exponent)::numeric AS minor_unit FROM currencies OFFSET 0) AS currency"
# As clients and consumers see it. A product is exact and has all the places; a quotient of large amounts is rounded.
AMOUNT = "(payment.amount * currency.minor_unit)::text"
# In payment.settled it is what was settled, elsewhere what was authorized.
_EVENT_AMOUNT = f"""(CASE subject.event_type
                          WHEN '{PAYMENT_SETTLED}' THEN coalesce(payment.amount_captured, payment.amount)
                          ELSE payment.amount END * currency.minor_unit)::text"""

INVARIANTS = (
    Invariant(
        "settled_payments_are_posted_once",
        "Each SETTLED payment has exactly one settlement, over what was captured, to the right accounts; no other has.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status,
               count(entry.id) FILTER (WHERE coalesce(posting.position, 1) = 1) AS entries,
               CASE subject.status WHEN 'SETTLED' THEN 1 ELSE 0 END AS expected_entries,
               sum(posting.amount)::text AS amount,
               coalesce(subject.amount_captured, subject.amount)::text AS expected_amount,
               min(posting.currency) AS currency, subject.currency AS expected_currency,
               min(posting.debit_account) AS debit_account, '{CASH}' AS expected_debit_account,
               min(posting.credit_account) AS credit_account, '{REVENUE}' AS expected_credit_account,
               CASE subject.status WHEN 'SETTLED' THEN
                   count(entry.id) FILTER (WHERE coalesce(posting.position, 1) = 1) <> 1
                   OR (sum(posting.amount), min(posting.currency), max(posting.currency))
                      IS DISTINCT FROM (coalesce(subject.amount_captured, subject.amount)::numeric, subject.currency,
                                        subject.currency)
                   OR bool_or((posting.debit_account, posting.credit_account) <> ('{CASH}', '{REVENUE}'))
                   OR bool_or(entry.source_id <> coalesce(subject.capture_id, subject.id))
               ELSE count(entry.id) > 0 END AS broken
        FROM SUBJECT
        LEFT JOIN ledger_entries AS entry
          ON entry.tenant_id = subject.tenant_id AND entry.source_id = ANY (ARRAY[subject.id, subject.capture_id])
         AND entry.kind = '{SETTLEMENT}'
        LEFT JOIN ledger_postings AS posting
          ON posting.tenant_id = entry.tenant_id AND posting.posted_at = entry.posted_at
         AND posting.entry_id = entry.id
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.amount, subject.amount_captured,
                 subject.currency, subject.capture_id
        """,  # noqa: S608
    ),
    Invariant(
        "settlements_have_their_payment",
        "Each settlement is the entry of a SETTLED payment of its own tenant, or of that payment's capture.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.kind,
               subject.source_id, payment.id AS payment_id, payment.status, 'SETTLED' AS expected_status,
               payment.status IS DISTINCT FROM 'SETTLED'
               OR subject.source_id <> coalesce(payment.capture_id, payment.id) AS broken
        FROM SUBJECT
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = coalesce(subject.subject_id, subject.source_id)
        """,
        f"kind = '{SETTLEMENT}'",
    ),
    Invariant(
        "moves_are_told_without_a_gap",
        "Each payment has one event for each of its moves and facts, numbered from 1: together a legal history.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.version AS expected_events,
               array_agg(event.event_type ORDER BY event.sequence) FILTER (WHERE event.id IS NOT NULL) AS events,
               count(legal.sequence)
               + count(*) FILTER (WHERE event.sequence > own.steps AND event.event_type = '{REFUND.event}')
               <> count(event.id)
               OR count(event.id) <> subject.version AND subject.created_at >= kept.since
               OR count(event.id) > subject.version
               OR bool_or(event.event_type = '{CAPTURE.event}' AND subject.capture_id IS NULL)
                   AS broken
        FROM SUBJECT
        CROSS JOIN (SELECT coalesce(%(events_since)s::timestamptz, '-infinity') AS since) AS kept
        CROSS JOIN LATERAL {_STEPS} AS own
        LEFT JOIN outbox_events AS event
          ON event.tenant_id = subject.tenant_id AND event.aggregate_id = subject.id
        LEFT JOIN {_LEGAL}
          ON legal.status = subject.status AND legal.steps = own.steps
         AND legal.sequence = event.sequence AND legal.event_type = event.event_type
        GROUP BY subject.tenant_id, subject.id, subject.status, subject.version, subject.created_at, kept.since
        """,  # noqa: S608
    ),
    Invariant(
        "nothing_waits_too_long",
        "No payment waits for its settlement for longer than the bound; a manual one waits from its capture on.",
        PAYMENTS,
        """
        SELECT subject.tenant_id, subject.id AS payment_id, waiting.since AS authorized_at,
               now() - make_interval(secs => %(authorized_seconds_max)s) AS expected_since,
               waiting.since < now() - make_interval(secs => %(authorized_seconds_max)s) AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (SELECT coalesce(subject.capture_requested_at, subject.updated_at) AS since) AS waiting
        """,
        "status = 'AUTHORIZED' AND (capture_method = 'automatic' OR capture_id IS NOT NULL)",
        # What has been AUTHORIZED for the bound just now has an event of that age.
        f"""(tenant_id, id) IN (
            SELECT tenant_id, aggregate_id FROM outbox_events
            WHERE {OF_ALL_TENANTS}
              AND id >= first_id_of(%(since)s::timestamptz - make_interval(secs => %(authorized_seconds_max)s))
              AND id < first_id_of(%(until)s::timestamptz - make_interval(secs => %(authorized_seconds_max)s)))""",  # noqa: S608
    ),
    Invariant(
        "changes_are_audited",
        "Each move of each payment, and its capture, has its one row in the audit log.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, own.steps AS expected_rows,
               array_agg(audited.action ORDER BY audited.at) FILTER (WHERE audited.id IS NOT NULL) AS rows,
               count(legal.sequence) <> count(audited.id)
               OR count(audited.id) > own.steps
               OR subject.created_at >= kept.since
                  AND coalesce(bit_or(1 << legal.sequence), 0) <> (1 << own.steps::integer + 1) - 2
               OR subject.updated_at >= kept.since AND count(*) FILTER (WHERE legal.sequence = own.steps) <> 1
                  AND NOT EXISTS (
                      SELECT FROM audit_log AS later
                      WHERE later.tenant_id = subject.tenant_id AND later.target = subject.id::text
                        AND later.action IN ('{REFUND.action}', 'payment.annotate'))
                   AS broken
        FROM SUBJECT
        CROSS JOIN (SELECT coalesce(%(audit_since)s::timestamptz, '-infinity') AS since) AS kept
        CROSS JOIN LATERAL {_STEPS} AS own
        LEFT JOIN audit_log AS audited
          ON audited.tenant_id = subject.tenant_id AND audited.target = subject.id::text
         AND audited.action = ANY ('{{{",".join(sorted({step.action for step in (*MOVES, CAPTURE)}))}}}')
        LEFT JOIN {_LEGAL}
          ON legal.status = subject.status AND legal.steps = own.steps AND legal.action = audited.action
        GROUP BY subject.tenant_id, subject.id, subject.status, own.steps, subject.created_at,
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
               meant.status AS expected_status, {_EVENT_AMOUNT} AS expected_amount,
               payment.currency AS expected_currency,
               payment.customer_ref AS expected_customer_ref, payment.order_id AS expected_order_id,
               payment.id IS NULL
               OR (body.payment_intent_id, body.tenant_id, body.status, body.amount, body.currency, body.customer_ref,
                   body.order_id, subject.headers->>'X-Tenant-Id')
                  IS DISTINCT FROM (subject.aggregate_id::text, subject.tenant_id, meant.status, {_EVENT_AMOUNT},
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
        "payments_can_be_listed",
        "Each payment that is not SETTLED is listed under its status and no other, and each under all its metadata.",
        PAYMENTS,
        """
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, noted.unlisted AS unlisted_metadata,
               array_agg(listed.status) FILTER (WHERE listed.status IS NOT NULL) AS listed,
               array_agg(listed.status) FILTER (WHERE listed.status IS NOT NULL)
               IS DISTINCT FROM CASE WHEN subject.status <> 'SETTLED' THEN ARRAY[subject.status] END
               OR noted.unlisted > 0 AS broken
        FROM SUBJECT
        LEFT JOIN unsettled_payments AS listed
          ON listed.tenant_id = subject.tenant_id
         AND listed.status = ANY (ARRAY['CREATED', 'AUTHORIZED', 'FAILED', 'CANCELLED', 'SETTLED'])
         AND listed.created_at = subject.created_at AND listed.payment_id = subject.id
        CROSS JOIN LATERAL (
            SELECT count(*) AS unlisted
            FROM json_each_text(subject.metadata) AS noted_pair
            WHERE NOT EXISTS (
                SELECT FROM payment_metadata
                WHERE tenant_id = subject.tenant_id
                  AND payment_metadata.pair = metadata_pair(noted_pair.key, noted_pair.value)
                  AND created_at = subject.created_at AND payment_id = subject.id)) AS noted
        GROUP BY subject.tenant_id, subject.id, subject.status, noted.unlisted
        """,
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
        "action LIKE 'payment.%%' AND action <> 'payment.annotate'",
    ),
)
