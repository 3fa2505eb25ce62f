"""The tables that hold rows of tenants."""

TABLES = (
    "tenants",
    "users",
    "roles",
    "user_roles",
    "payment_intents",
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
    "ledger_transactions",
    "ledger_hold_postings",
    "ledger_transaction_accounts",
    "ledger_transaction_notes",
    "account_balances",
)
