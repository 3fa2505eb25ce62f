"""A multi-tenant payments engine with a double-entry ledger."""
