"""Pickers: who of several equals gets the next call."""
