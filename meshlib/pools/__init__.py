"""Connections to endpoints, for every host library: who may have one, who waits for one, when one ends."""
