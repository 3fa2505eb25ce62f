"""The whole engine on an embedded PostgreSQL, with demo users and one payment to watch."""
