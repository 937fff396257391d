from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "sidecar",
    "50 tasks; the sidecar is an Envoy with the same routes, endpoints and policies",
    (
        Row(
            "meshlib.AsyncClient ÷ httpx.AsyncClient through Envoy",
            "meshlib.AsyncClient",
            "httpx.AsyncClient via Envoy",
            at_most=0.85,
        ),
    ),
    place=3,
)
