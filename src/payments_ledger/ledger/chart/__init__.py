"""The chart of accounts: what accounts a tenant has, their limits, and whether they are open."""
