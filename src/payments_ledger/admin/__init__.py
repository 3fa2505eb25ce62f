"""What administrators do: policies, users, the tenant itself, chaos, and reading the audit log."""
