"""What holds of the responses that are kept under idempotency keys: each shows what the books say."""

from payments_ledger.commit.invariants import IDEMPOTENCY_KEYS
from payments_ledger.payments.invariants import AMOUNT, CURRENCY
from payments_ledger.verify.invariant import Invariant

_PATH = "/v1/payment-intents"
# The last step of a route about one payment, and the status that the payment has in a response to it.
_ACTION = f"substring(subject.route FROM '^POST {_PATH}/[^/]+/([a-z]+)$')"
_STATUS_AFTER = """CASE action.name WHEN 'confirm' THEN 'AUTHORIZED' WHEN 'capture' THEN 'AUTHORIZED'
                                     WHEN 'cancel' THEN 'CANCELLED' WHEN 'fail' THEN 'FAILED' END"""
# Whether the route of a kept response is an action on `payment_id`. A route is the path that was requested, with the id
# in any case, or its template.
_IS_ABOUT = f"""(lower(subject.route) = 'post {_PATH}/' || {{payment_id}} || '/' || action.name
                 OR subject.route LIKE 'POST {_PATH}/{{{{%%}}}}/' || action.name)"""

INVARIANTS = (
    Invariant(
        "kept_answers_match_their_payment",
        "Each kept 2xx response of a payment route shows a payment of its tenant as it was requested.",
        IDEMPOTENCY_KEYS,
        f"""
        SELECT subject.tenant_id, subject.principal, subject.route, subject.key,
               convert_from(subject.body, 'UTF8') AS answer, payment.id AS payment_id,
               {AMOUNT} AS expected_amount, payment.currency AS expected_currency,
               payment.customer_ref AS expected_customer_ref,
               (answer.id, answer.amount, answer.currency, answer.customer_ref)
               IS DISTINCT FROM (payment.id::text, {AMOUNT}, payment.currency, payment.customer_ref)
               OR CASE subject.status WHEN 201 THEN
                      (subject.route, subject.location, answer.status)
                      IS DISTINCT FROM ('POST {_PATH}', '{_PATH}/' || payment.id, 'CREATED')
                  ELSE
                      {_IS_ABOUT.format(payment_id="payment.id")} IS NOT TRUE
                      OR answer.status IS DISTINCT FROM {_STATUS_AFTER} OR subject.location IS NOT NULL
                  END AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (SELECT {_ACTION} AS name) AS action
        CROSS JOIN LATERAL json_to_record(convert_from(subject.body, 'UTF8')::json)
            AS answer (id text, amount text, currency text, status text, customer_ref text)
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id
         AND payment.id = CASE WHEN pg_input_is_valid(answer.id, 'uuid') THEN answer.id::uuid END
        LEFT JOIN {CURRENCY} ON currency.code = payment.currency
        """,  # noqa: S608
        f"""status BETWEEN 200 AND 299 AND route LIKE 'POST {_PATH}%%' AND route <> 'POST {_PATH}/batch'
            AND route NOT LIKE '%%/refunds'""",
    ),
    Invariant(
        "kept_batches_match_the_books",
        "Each outcome in a kept response of the batch route shows a payment of its tenant, or why there is none.",
        IDEMPOTENCY_KEYS,
        f"""
        SELECT outcome.tenant_id, outcome.principal, outcome.route, outcome.key, outcome.status,
               count(outcome.place) AS outcomes, count(*) FILTER (WHERE outcome.is_wrong) AS wrong, 0 AS expected_wrong,
               min(outcome.place) FILTER (WHERE outcome.is_wrong) AS first_wrong,
               outcome.status <> 200 OR count(outcome.place) = 0 OR bool_or(outcome.is_wrong) AS broken
        FROM (
            SELECT subject.*, listed.place,
                   CASE WHEN listed.outcome->>'status' = '201' THEN
                       (answer.id, answer.amount, answer.currency, answer.customer_ref, answer.status)
                       IS DISTINCT FROM (payment.id::text, {AMOUNT}, payment.currency, payment.customer_ref, 'CREATED')
                   ELSE
                       listed.outcome->'payment_intent' IS NOT NULL
                       OR listed.outcome->'problem'->>'status' IS DISTINCT FROM listed.outcome->>'status'
                       OR coalesce(listed.outcome->>'status', '') !~ '^4[0-9][0-9]$'
                   END AS is_wrong
            FROM SUBJECT
            LEFT JOIN LATERAL json_array_elements(convert_from(subject.body, 'UTF8')::json->'outcomes')
                WITH ORDINALITY AS listed (outcome, place) ON true
            LEFT JOIN LATERAL json_to_record(listed.outcome->'payment_intent')
                AS answer (id text, amount text, currency text, status text, customer_ref text) ON true
            LEFT JOIN payment_intents AS payment
              ON payment.tenant_id = subject.tenant_id
             AND payment.id = CASE WHEN pg_input_is_valid(answer.id, 'uuid') THEN answer.id::uuid END
            LEFT JOIN {CURRENCY} ON currency.code = payment.currency
        ) AS outcome
        GROUP BY outcome.tenant_id, outcome.principal, outcome.route, outcome.key, outcome.status
        """,  # noqa: S608
        f"route = 'POST {_PATH}/batch'",
    ),
    Invariant(
        "kept_refusals_match_the_books",
        "Each kept refusal of a payment route is a problem document of its status, explained by the payment's state.",
        IDEMPOTENCY_KEYS,
        f"""
        SELECT subject.tenant_id, subject.principal, subject.route, subject.key, subject.status,
               convert_from(subject.body, 'UTF8') AS answer, payment.id AS payment_id,
               payment.status AS payment_status,
               problem.status IS DISTINCT FROM subject.status::text
               OR subject.status NOT BETWEEN 400 AND 499
               OR CASE WHEN action.name IS NULL THEN
                      'POST ' || problem.instance IS DISTINCT FROM subject.route
                  ELSE
                      {_IS_ABOUT.format(payment_id="refused.payment_id")} IS NOT TRUE
                      OR subject.status = 404 AND payment.id IS NOT NULL
                      OR subject.status = 409 AND CASE problem.code
                             WHEN 'already_moved' THEN coalesce(payment.status, 'CREATED') = 'CREATED'
                             WHEN 'illegal_move' THEN coalesce(payment.status, 'CREATED') = 'CREATED'
                             WHEN 'payment_expired' THEN payment.expires_at IS NULL
                             WHEN 'already_captured' THEN payment.capture_id IS NULL
                             ELSE payment.id IS NULL END
                  END AS broken
        FROM SUBJECT
        CROSS JOIN LATERAL (SELECT {_ACTION} AS name) AS action
        CROSS JOIN LATERAL json_to_record(convert_from(subject.body, 'UTF8')::json)
            AS problem (status text, instance text, code text)
        CROSS JOIN LATERAL (
            SELECT substring(problem.instance FROM '^{_PATH}/([^/]+)/[a-z]+$') AS id
        ) AS asked
        CROSS JOIN LATERAL (
            SELECT CASE WHEN pg_input_is_valid(asked.id, 'uuid') THEN asked.id::uuid END AS payment_id
        ) AS refused
        LEFT JOIN payment_intents AS payment
          ON payment.tenant_id = subject.tenant_id AND payment.id = refused.payment_id
        """,  # noqa: S608
        f"status NOT BETWEEN 200 AND 299 AND route LIKE 'POST {_PATH}%%' AND route <> 'POST {_PATH}/batch'",
    ),
)
