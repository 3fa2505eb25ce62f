"""Messages, whoever carries them: what they are, and how they are handled."""
