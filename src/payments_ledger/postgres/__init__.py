"""PostgreSQL: the one way to open a transaction, and what makes it quick."""
