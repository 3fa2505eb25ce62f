"""What every module stands on: settings, database, broker, cache, logs, metrics. It knows nothing of payments."""
