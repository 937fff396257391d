"""Endpoints are asked whether they can serve: the I/O of active health checks."""
