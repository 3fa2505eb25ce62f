"""What holds of the delivery of events, whatever they are about."""

from payments_ledger.commit.invariants import EVENTS
from payments_ledger.delivery.relay import POSTPONE_SECONDS_MAX
from payments_ledger.verify.invariant import Invariant

# Twice what the relay postpones by at most: the row's clock may be a little ahead of the audit's.
DUE_SECONDS_MAX = int(2 * POSTPONE_SECONDS_MAX)

INVARIANTS = (
    Invariant(
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
)
