"""What holds between the events and the log that gives them their positions."""

from payments_ledger.commit.invariants import EVENTS
from payments_ledger.verify.invariant import OF_ALL_TENANTS, Invariant, Subject

LOG = Subject(
    "event_log",
    (("tenant_id", "text"), ("position", "bigint")),
    "created_at >= %(since)s",
    f"{OF_ALL_TENANTS} AND created_at >= %(since)s",
)

INVARIANTS = (
    Invariant(
        "events_have_a_position",
        "Each event that the log has come to has its one position.",
        EVENTS,
        """
        SELECT subject.tenant_id, subject.id AS event_id, subject.event_type, logged.position,
               logged.position IS NULL
               AND CASE WHEN subject.written_by IS NULL THEN reach.older_tenant IS NULL
                        ELSE subject.written_by < reach.written_below END AS broken
        FROM SUBJECT
        CROSS JOIN event_log_reach AS reach
        LEFT JOIN event_log AS logged ON logged.tenant_id = subject.tenant_id AND logged.event_id = subject.id
        """,
    ),
    Invariant(
        "positions_follow_without_a_gap",
        "Each position is that of an event, follows the one before, and has an aggregate's events in their order.",
        LOG,
        """
        SELECT subject.tenant_id, subject.position, subject.event_id, before.position AS position_before,
               subject.position > head.last_position OR head.last_position IS NULL
               OR before.position IS NULL AND subject.position > first.position
               OR event.id IS NULL AND subject.created_at >= coalesce(%(events_since)s::timestamptz, '-infinity')
               OR (event.id, event.event_type) IS DISTINCT FROM (subject.event_id, subject.event_type)
                  AND event.id IS NOT NULL
               OR earlier.position > subject.position AS broken
        FROM SUBJECT
        LEFT JOIN event_log_heads AS head ON head.tenant_id = subject.tenant_id
        LEFT JOIN event_log AS before
          ON before.tenant_id = subject.tenant_id AND before.position = subject.position - 1
        LEFT JOIN LATERAL (
            SELECT min(position) AS position FROM event_log WHERE tenant_id = subject.tenant_id) AS first ON true
        LEFT JOIN outbox_events AS event
          ON event.tenant_id = subject.tenant_id AND event.aggregate_id = subject.aggregate_id
         AND event.sequence = subject.sequence
        LEFT JOIN outbox_events AS sooner
          ON sooner.tenant_id = subject.tenant_id AND sooner.aggregate_id = subject.aggregate_id
         AND sooner.sequence = subject.sequence - 1
        LEFT JOIN event_log AS earlier
          ON earlier.tenant_id = sooner.tenant_id AND earlier.event_id = sooner.id
        """,
    ),
)
