"""The tables that hold rows of tenants."""

TABLES = (
    "tenants",
    "users",
    "roles",
    "user_roles",
    "payment_expiries",
    "payment_metadata",
    "unsettled_payments",
    "payment_intents",
    "payment_refunds",
    "accounts",
    "ledger_entries",
    "ledger_postings",
    "account_totals",
    "outbox_events",
    "idempotency_keys",
    "audit_log",
    "policies",
    "orders",
    "payment_counts",
)
