"""Envoy's conditions of a retry, as routes and requests name them: of HTTP (RT-06) and by gRPC's codes (RT-02).

``http3-post-connect-failure`` cannot happen here, and so is no less honoured.
"""

from __future__ import annotations

__all__ = ["ENVOY_RETRY_GRPC_ON", "ENVOY_RETRY_ON"]

ENVOY_RETRY_ON = frozenset(
    (
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
    )
)
ENVOY_RETRY_GRPC_ON = frozenset(
    ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
)
