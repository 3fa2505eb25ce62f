"""The transactional outbox: events are recorded with the change they tell of, and published afterwards."""
