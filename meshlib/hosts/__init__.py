"""The libraries that applications call with, each bound to the one call engine by a small protocol."""
