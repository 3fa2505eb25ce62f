"""Transactions of the ledger: posted, held, reversed; decided over values, then written."""
