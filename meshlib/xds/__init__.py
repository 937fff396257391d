"""The xDS protocol, pure: bytes in, bytes and values out; time and randomness are passed in."""
