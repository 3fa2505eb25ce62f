"""Redis: commands of concurrent requests in one pipeline."""
