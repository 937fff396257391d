"""The xDS protocol, pure: messages in, messages out. No clock, no randomness, no I/O."""
