"""Tenants: whose payments, ledger and users these are."""
