"""Chaos: the same calls through a real Envoy and through meshlib, while everything around them breaks."""
