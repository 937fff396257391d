"""Connections to endpoints: one pool an endpoint, and the streams below it. No decision lives here."""
