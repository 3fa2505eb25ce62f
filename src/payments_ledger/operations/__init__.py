"""What the person on call does: look at the state of everything, follow events, put right what got stuck."""
