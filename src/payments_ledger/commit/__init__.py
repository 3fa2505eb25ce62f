"""What one commit is: a batch of commands with their events, audit rows and responses."""
