"""The tables that a commit writes beside the change itself, as subjects of invariants.

Their rows are about the change, so the module of the change declares what must hold of them.
"""

from payments_ledger.verify.invariant import OF_ALL_TENANTS, Subject

# Ids are in the order of time.
EVENTS = Subject(
    "outbox_events",
    (("tenant_id", "text"), ("id", "uuid")),
    "created_at >= %(since)s",
    f"{OF_ALL_TENANTS} AND id >= first_id_of(%(since)s::timestamptz)",
)
# A key expires a fixed time after its response was kept.
IDEMPOTENCY_KEYS = Subject(
    "idempotency_keys",
    (("tenant_id", "text"), ("principal", "text"), ("route", "text"), ("key", "text")),
    "created_at >= %(since)s",
    "expires_at >= %(since)s::timestamptz + make_interval(secs => %(idempotency_ttl_seconds)s)",
)
AUDIT_LOG = Subject(
    "audit_log",
    (("tenant_id", "text"), ("id", "uuid")),
    "at >= %(since)s",
    f"{OF_ALL_TENANTS} AND at >= %(since)s",
)
