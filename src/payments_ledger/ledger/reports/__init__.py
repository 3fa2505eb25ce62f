"""What the books say as of a time: balances, statements of an account, and reports over all accounts."""
