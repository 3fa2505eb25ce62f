"""Payment intents: created, authorized, settled."""
