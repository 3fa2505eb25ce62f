"""A process: its settings, how it ends, where a test can strike it."""
