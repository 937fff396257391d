"""What to do: pure functions and small state machines. Time and randomness are passed in."""
