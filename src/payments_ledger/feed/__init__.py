"""The feed: every event of a tenant in an order that never changes, for whoever cannot consume from a broker."""
