"""From the outbox to its readers."""
