"""The database's schema: migrations, roles, retention."""
