"""The double-entry ledger: entries, their postings, balances. It never learns what a payment is."""
