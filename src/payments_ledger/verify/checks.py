"""The catalogue of what must hold, each as one SQL query over the rows of one table that says which are broken.

One query serves the whole database (hash joins) and a handful of rows (indexes): it looks at the rows of its subject
that somebody picked, and joins to them whatever they must agree with. Parameters of all: `authorized_seconds_max`, and
`events_since` and `audit_since`, before which rows may have been dropped (NULL: none were).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import iso4217

from payments_ledger.delivery.relay import POSTPONE_SECONDS_MAX
from payments_ledger.ledger.accounts import CASH, DEFAULT_ACCOUNTS, REVENUE
from payments_ledger.payments.events import PAYMENT_REFUNDED
from payments_ledger.payments.lifecycle import MOVES, Move, Status
from payments_ledger.payments.postings import REFUND, SETTLEMENT

FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A table whose rows are looked at; `key` are the columns of its primary key with their types.

    `since` picks the rows written since the parameter `since`. `changed` does so by an index, and may pick more: rows
    of the outbox and the audit log have ids in the order of time (`since_id`), answers run out a fixed time
    (`answers_seconds`) after they were kept.
    """

    table: str
    key: tuple[tuple[str, str], ...]
    since: str
    changed: str

    @property
    def is_of_tenants(self) -> bool:
        """Whether each row belongs to a tenant; the key then begins with it."""
        return self.key[0][0] == "tenant_id"

    def among(self) -> str:
        """The condition that picks the rows whose keys are in the parameter `keys`, a JSON array of arrays of texts."""
        values = ", ".join(f"(wanted.key->>{number})::{type_}" for number, (_, type_) in enumerate(self.key))
        return f"({self._columns}) IN (SELECT {values} FROM json_array_elements(%(keys)s::json) AS wanted (key))"  # noqa: S608

    def page(self, key_length: int) -> str:
        """The condition that picks the first `page_rows` rows behind `after`, the texts of a key or its beginning."""
        # The limit stands where the planner sees it: few rows, so nobody reads a whole table to join them.
        return f"({self._columns}) IN (SELECT {self._columns} FROM {self._page(key_length)})"  # noqa: S608

    def last_of_page(self, key_length: int) -> str:
        """The query of the page's last key, as an array of texts."""
        texts = ", ".join(f"{name}::text" for name, _ in self.key)
        descending = ", ".join(f"{name} DESC" for name, _ in self.key)
        return f"SELECT ARRAY[{texts}] FROM {self._page(key_length)} ORDER BY {descending} LIMIT 1"  # noqa: S608

    def _page(self, key_length: int) -> str:
        columns = ", ".join(name for name, _ in self.key[:key_length])
        values = ", ".join(
            f"(%(after)s::text[])[{number}]::{type_}"
            for number, (_, type_) in enumerate(self.key[:key_length], start=1)
        )
        condition = f"({columns}) > ({values})" if key_length else "true"
        return f"""(
            SELECT {self._columns} FROM {self.table} WHERE {condition} ORDER BY {self._columns} LIMIT %(page_rows)s
        ) AS page"""  # noqa: S608

    @property
    def _columns(self) -> str:
        return ", ".join(name for name, _ in self.key)


_OF_ALL_TENANTS = "tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenants))"

PAYMENTS = Subject(
    "payment_intents",
    (("tenant_id", "text"), ("id", "uuid")),
    "updated_at >= %(since)s",
    f"""(tenant_id, id) IN (
        SELECT tenant_id, aggregate_id FROM outbox_events WHERE {_OF_ALL_TENANTS} AND id >= %(since_id)s::uuid)""",  # noqa: S608
)
ENTRIES = Subject(
    "ledger_entries",
    (("tenant_id", "text"), ("posted_at", "timestamptz"), ("id", "uuid")),
    "posted_at >= %(since)s",
    f"{_OF_ALL_TENANTS} AND posted_at >= %(since)s",
)
POSTINGS = Subject(
    "ledger_postings",
    (("tenant_id", "text"), ("posted_at", "timestamptz"), ("entry_id", "uuid"), ("position", "smallint")),
    "posted_at >= %(since)s",
    f"{_OF_ALL_TENANTS} AND posted_at >= %(since)s",
)
TOTALS = Subject(
    "account_totals",
    (("tenant_id", "text"), ("account", "text"), ("currency", "text"), ("day", "date")),
    "day >= (%(since)s::timestamptz AT TIME ZONE 'UTC')::date",
    # Today's totals change with every batch, and each look at them folds the whole day.
    "false",
)
EVENTS = Subject(
    "outbox_events",
    (("tenant_id", "text"), ("id", "uuid")),
    "created_at >= %(since)s",
    f"{_OF_ALL_TENANTS} AND id >= %(since_id)s::uuid",
)
ANSWERS = Subject(
    "idempotency_keys",
    (("tenant_id", "text"), ("principal", "text"), ("route", "text"), ("key", "text")),
    "created_at >= %(since)s",
    "expires_at >= %(since)s::timestamptz + make_interval(secs => %(answers_seconds)s)",
)
AUDIT = Subject(
    "audit_log",
    (("tenant_id", "text"), ("id", "uuid")),
    "at >= %(since)s",
    f"{_OF_ALL_TENANTS} AND at >= %(since)s",
)
# A few rows that only migrations write, so nobody asks for those written lately.
CURRENCIES = Subject("currencies", (("code", "text"),), "false", "false")


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """An invariant: its name, what it says in one sentence, and the query that looks at the rows of its subject.

    `rows` selects from `subject`: first the subject's key, then what was found and what was expected, at last `broken`.
    `where` leaves out rows that the invariant says nothing about; `changed` takes the place of the subject's where
    time alone breaks an invariant.
    """

    name: str
    statement: str
    subject: Subject
    rows: str
    where: str = "true"
    changed: str | None = None

    def counting(self, condition: str) -> str:
        """The query of `examined` and `broken` among the rows that meet the condition."""
        return f"SELECT count(*), count(*) FILTER (WHERE broken) FROM ({self._looking(condition)}) AS looked_at"  # noqa: S608

    def showing(self, condition: str) -> str:
        """The query of the broken rows, as JSON objects; its parameter `limit` bounds them."""
        return f"SELECT to_json(found) FROM ({self._looking(condition)}) AS found WHERE broken LIMIT %(limit)s"  # noqa: S608

    def _looking(self, condition: str) -> str:
        # All parts are constants of this package.
        subject = f"SELECT * FROM {self.subject.table} WHERE ({self.where}) AND ({condition})"  # noqa: S608
        return self.rows.replace("SUBJECT", f"({subject}) AS subject")


def _histories(*path: Move) -> Iterator[tuple[Move, ...]]:
    """Every legal way that begins with the path; there is no way back, so they end."""
    if path:
        yield path
    here = path[-1].after if path else None
    for move in MOVES:
        if move.before is here:
            yield from _histories(*path, move)


# Which move a payment has made as its n-th (`sequence`) when it has come so far (`status`, `version`).
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
# What the audit row of each action tells of the payment's status before and after it.
_AUDITED_MOVES = "(VALUES {}) AS move (action, before, after)".format(
    ", ".join(
        [
            *(f"('{move.action}', {f"'{move.before}'" if move.before else 'NULL'}, '{move.after}')" for move in MOVES),
            f"('payment.refund', '{Status.SETTLED}', '{Status.SETTLED}')",
        ]
    )
)
# A text is read with all its places, and OFFSET keeps the planner from reading it for each row it is joined to.
_CURRENCY = "(SELECT code, ('1e-' || exponent)::numeric AS minor_unit FROM currencies OFFSET 0) AS currency"
# As clients and consumers see it. A product is exact and has all the places; a quotient of large amounts is rounded.
_AMOUNT = "(payment.amount * currency.minor_unit)::text"
_LIBRARY = "(VALUES {}) AS library (code, exponent)".format(
    ", ".join(f"('{listed.code}', {listed.exponent})" for listed in iso4217.Currency if listed.exponent is not None)
)
_CATALOGUE = "(VALUES {}) AS catalogue (code, type)".format(
    ", ".join(f"('{account.code}', '{account.type}')" for account in DEFAULT_ACCOUNTS)
)

# Twice what the relay postpones by at most: the row's clock may be a little ahead of the look at it.
DUE_SECONDS_MAX = int(2 * POSTPONE_SECONDS_MAX)

_PATH = "/v1/payment-intents"
_IS_CONFIRMATION = f"subject.route LIKE 'POST {_PATH}/%%/confirm'"
# Whether the route of a kept answer is the confirmation of `payment_id`. A route is what the client asked for, with the
# id in any case, or the template of it.
_IS_ABOUT = f"""(lower(subject.route) = 'post {_PATH}/' || {{payment_id}} || '/confirm'
                 OR subject.route LIKE 'POST {_PATH}/{{{{%%}}}}/confirm')"""

CHECKS = (
    Check(
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
    Check(
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
    Check(
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
    Check(
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
    Check(
        "entries_have_their_payment",
        "Each entry is a settlement or a refund of a SETTLED payment of its own tenant.",
        ENTRIES,
        f"""
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.kind,
               subject.source_id AS payment_id, payment.status, 'SETTLED' AS expected_status,
               payment.status IS DISTINCT FROM 'SETTLED' OR subject.kind NOT IN ('{SETTLEMENT}', '{REFUND}') AS broken
        FROM SUBJECT
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = subject.source_id
        """,  # noqa: S608
    ),
    Check(
        "refunds_reverse_their_settlement",
        "Each refund reverses the settlement of its payment, over the same amount, with one event and one audit row.",
        ENTRIES,
        """
        SELECT subject.tenant_id, subject.posted_at, subject.id AS entry_id, subject.source_id AS payment_id,
               refund.amount, settled.amount AS expected_amount, told.events, audited.rows AS audit_rows,
               (refund.debit_account, refund.credit_account, refund.amount, refund.currency)
               IS DISTINCT FROM (settled.credit_account, settled.debit_account, settled.amount, settled.currency)
               OR told.events <> 1 AND coalesce(subject.source_id >= first_id_of(%(events_since)s::timestamptz), true)
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
        ) AS told
        CROSS JOIN LATERAL (
            SELECT count(*) AS rows
            FROM audit_log
            WHERE tenant_id = subject.tenant_id AND target = subject.source_id::text AND action = 'payment.refund'
        ) AS audited
        """,
        "kind = 'refund'",
    ),
    Check(
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
    Check(
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
        # Of what has waited for the bound just now, the event that told of it is as old.
        f"""(tenant_id, id) IN (
            SELECT tenant_id, aggregate_id FROM outbox_events
            WHERE {_OF_ALL_TENANTS} AND id >= %(waiting_since_id)s::uuid AND id < %(waiting_until_id)s::uuid)""",  # noqa: S608
    ),
    Check(
        "orders_agree_with_the_books",
        "The order of a payment is known; the payment is CANCELLED, FAILED or refunded if it was cancelled, else not.",
        PAYMENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS payment_id, subject.status, subject.order_id,
               heard.order_id AS known_order_id, heard.cancelled_at, refund.id AS refund_id,
               CASE WHEN heard.order_id IS NULL THEN true
                    WHEN heard.cancelled_at IS NULL THEN subject.status = 'CANCELLED' OR refund.id IS NOT NULL
                    ELSE subject.status IN ('CREATED', 'AUTHORIZED')
                         OR subject.status = 'SETTLED' AND refund.id IS NULL END AS broken
        FROM SUBJECT
        LEFT JOIN orders AS heard
          ON heard.tenant_id = subject.tenant_id AND heard.order_id = subject.order_id
        LEFT JOIN ledger_entries AS refund
          ON refund.tenant_id = subject.tenant_id AND refund.source_id = subject.id AND refund.kind = '{REFUND}'
        """,  # noqa: S608
        "order_id IS NOT NULL",
    ),
    Check(
        "kept_answers_match_their_payment",
        "Each kept 2xx answer of a payment route shows a payment of its tenant as it was asked for.",
        ANSWERS,
        f"""
        SELECT subject.tenant_id, subject.principal, subject.route, subject.key,
               convert_from(subject.body, 'UTF8') AS answer, payment.id AS payment_id,
               {_AMOUNT} AS expected_amount, payment.currency AS expected_currency,
               payment.customer_ref AS expected_customer_ref,
               (answer.id, answer.amount, answer.currency, answer.customer_ref)
               IS DISTINCT FROM (payment.id::text, {_AMOUNT}, payment.currency, payment.customer_ref)
               OR CASE subject.status WHEN 201 THEN
                      (subject.route, subject.location, answer.status)
                      IS DISTINCT FROM ('POST {_PATH}', '{_PATH}/' || payment.id, 'CREATED')
                  ELSE
                      {_IS_ABOUT.format(payment_id="payment.id")} IS NOT TRUE
                      OR answer.status IS DISTINCT FROM 'AUTHORIZED'
                  END AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(convert_from(subject.body, 'UTF8')::json)
            AS answer (id text, amount text, currency text, status text, customer_ref text)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id
         AND payment.id = CASE WHEN pg_input_is_valid(answer.id, 'uuid') THEN answer.id::uuid END
        LEFT JOIN {_CURRENCY} ON currency.code = payment.currency
        """,  # noqa: S608
        f"status BETWEEN 200 AND 299 AND (route = 'POST {_PATH}' OR route LIKE 'POST {_PATH}/%%/confirm')",
    ),
    Check(
        "kept_batches_match_the_books",
        "Each outcome in a kept answer of the batch route shows a payment of its tenant, or why there is none.",
        ANSWERS,
        f"""
        SELECT outcome.tenant_id, outcome.principal, outcome.route, outcome.key, outcome.status,
               count(outcome.place) AS outcomes, count(*) FILTER (WHERE outcome.is_wrong) AS wrong, 0 AS expected_wrong,
               min(outcome.place) FILTER (WHERE outcome.is_wrong) AS first_wrong,
               outcome.status <> 200 OR count(outcome.place) = 0 OR bool_or(outcome.is_wrong) AS broken
        FROM (
            SELECT subject.*, told.place,
                   CASE WHEN told.outcome->>'status' = '201' THEN
                       (answer.id, answer.amount, answer.currency, answer.customer_ref, answer.status)
                       IS DISTINCT FROM (payment.id::text, {_AMOUNT}, payment.currency, payment.customer_ref, 'CREATED')
                   ELSE
                       told.outcome->'payment_intent' IS NOT NULL
                       OR told.outcome->'problem'->>'status' IS DISTINCT FROM told.outcome->>'status'
                       OR coalesce(told.outcome->>'status', '') !~ '^4[0-9][0-9]$'
                   END AS is_wrong
            FROM SUBJECT
            LEFT JOIN LATERAL json_array_elements(convert_from(subject.body, 'UTF8')::json->'outcomes')
                WITH ORDINALITY AS told (outcome, place) ON true
            LEFT JOIN LATERAL json_to_record(told.outcome->'payment_intent')
                AS answer (id text, amount text, currency text, status text, customer_ref text) ON true
            LEFT JOIN payment_intents AS payment
              ON payment.tenant_id = subject.tenant_id
             AND payment.id = CASE WHEN pg_input_is_valid(answer.id, 'uuid') THEN answer.id::uuid END
            LEFT JOIN {_CURRENCY} ON currency.code = payment.currency
        ) AS outcome
        GROUP BY outcome.tenant_id, outcome.principal, outcome.route, outcome.key, outcome.status
        """,  # noqa: S608
        f"route = 'POST {_PATH}/batch'",
    ),
    Check(
        "kept_refusals_match_the_books",
        "Each kept refusal of a payment route is the problem that its status says, and the payment was refused for it.",
        ANSWERS,
        f"""
        SELECT subject.tenant_id, subject.principal, subject.route, subject.key, subject.status,
               convert_from(subject.body, 'UTF8') AS answer, payment.id AS payment_id,
               payment.status AS payment_status,
               told.status IS DISTINCT FROM subject.status::text
               OR subject.status NOT BETWEEN 400 AND 499
               OR CASE WHEN NOT {_IS_CONFIRMATION} THEN
                      'POST ' || told.instance IS DISTINCT FROM subject.route
                  ELSE
                      {_IS_ABOUT.format(payment_id="refused.payment_id")} IS NOT TRUE
                      OR subject.status = 404 AND payment.id IS NOT NULL
                      OR subject.status = 409 AND coalesce(payment.status, 'CREATED') = 'CREATED'
                  END AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(convert_from(subject.body, 'UTF8')::json)
            AS told (status text, instance text)
        CROSS JOIN LATERAL (
            SELECT substring(told.instance FROM '^{_PATH}/([^/]+)/confirm$') AS id
        ) AS asked
        CROSS JOIN LATERAL (
            SELECT CASE WHEN pg_input_is_valid(asked.id, 'uuid') THEN asked.id::uuid END AS payment_id
        ) AS refused
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = refused.payment_id
        """,  # noqa: S608
        f"status NOT BETWEEN 200 AND 299 AND route LIKE 'POST {_PATH}%%' AND route <> 'POST {_PATH}/batch'",
    ),
    Check(
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
    Check(
        "events_match_their_payment",
        "Each event tells of a payment of its own tenant, in its header, its body and its key, with its true terms.",
        EVENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS event_id, subject.event_type, subject.aggregate_id AS payment_id,
               subject.payload, subject.headers->>'X-Tenant-Id' AS tenant_in_header,
               meant.status AS expected_status, {_AMOUNT} AS expected_amount, payment.currency AS expected_currency,
               payment.customer_ref AS expected_customer_ref, payment.order_id AS expected_order_id,
               payment.id IS NULL
               OR (told.payment_intent_id, told.tenant_id, told.status, told.amount, told.currency, told.customer_ref,
                   told.order_id, subject.headers->>'X-Tenant-Id')
                  IS DISTINCT FROM (subject.aggregate_id::text, subject.tenant_id, meant.status, {_AMOUNT},
                                    payment.currency, payment.customer_ref, payment.order_id, subject.tenant_id)
                   AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(subject.payload)
            AS told (payment_intent_id text, tenant_id text, status text, amount text, currency text,
                     customer_ref text, order_id text)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = subject.aggregate_id
        LEFT JOIN {_CURRENCY} ON currency.code = payment.currency
        LEFT JOIN {_EVENT_STATUS} ON meant.event_type = subject.event_type
        """,  # noqa: S608
    ),
    Check(
        "events_are_published_or_due",
        "Each event was tried before it was published or buried, at a time that was, or it is due within two minutes.",
        EVENTS,
        f"""
        SELECT subject.tenant_id, subject.id AS event_id, subject.event_type, subject.created_at, subject.attempts,
               subject.published_at, subject.buried_at, subject.next_attempt_at,
               CASE WHEN coalesce(subject.published_at, subject.buried_at) IS NOT NULL THEN
                   subject.attempts < 1
                   OR coalesce(subject.published_at, subject.buried_at)
                      NOT BETWEEN subject.created_at - bound.apart AND now() + bound.apart
               ELSE subject.next_attempt_at > now() + bound.apart END AS broken
        FROM SUBJECT
        CROSS JOIN (SELECT make_interval(secs => {DUE_SECONDS_MAX}) AS apart) AS bound
        """,  # noqa: S608
    ),
    Check(
        "audit_rows_have_their_payment",
        "Each audit row about a payment names one of its own tenant, its true amount, and a move that it may make.",
        AUDIT,
        f"""
        SELECT subject.tenant_id, subject.id AS audit_id, subject.action, subject.target AS expected_payment_id,
               subject.detail, {_AMOUNT} || ' ' || payment.currency AS expected_amount,
               payment.id IS NULL OR move.action IS NULL
               OR told.amount IS DISTINCT FROM {_AMOUNT} || ' ' || payment.currency AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL json_to_record(subject.detail) AS told (amount text, before json, after json)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id
         AND payment.id = CASE WHEN pg_input_is_valid(subject.target, 'uuid') THEN subject.target::uuid END
        LEFT JOIN {_CURRENCY} ON currency.code = payment.currency
        LEFT JOIN {_AUDITED_MOVES}
          ON move.action = subject.action AND move.after = told.after->>'status'
         AND move.before IS NOT DISTINCT FROM told.before->>'status'
        """,  # noqa: S608
        "action LIKE 'payment.%%'",
    ),
    Check(
        "totals_have_their_account",
        "The account of each total exists, and is of the type that the catalogue gives it: its balance has its sign.",
        TOTALS,
        f"""
        SELECT subject.tenant_id, subject.account, subject.currency, subject.day, account.type,
               catalogue.type AS expected_type,
               account.code IS NULL OR account.type IS DISTINCT FROM catalogue.type AS broken
        FROM SUBJECT
        LEFT JOIN accounts AS account ON account.tenant_id = subject.tenant_id AND account.code = subject.account
        LEFT JOIN {_CATALOGUE} ON catalogue.code = subject.account
        """,  # noqa: S608
    ),
    Check(
        "currencies_have_the_places_of_iso_4217",
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
