from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "adoption",
    "requests: calls that are observed beside the mesh; calls that are handed to an Envoy",
    (
        Row(
            "meshlib_requests.Session, observed ÷ requests.Session",
            "meshlib_requests.Session, observed",
            "requests.Session",
            at_most=1.05,
        ),
        Row(
            "meshlib_requests.Session, handed ÷ requests.Session through the same Envoy",
            "meshlib_requests.Session, handed",
            "requests.Session via Envoy",
            at_most=1.05,
        ),
    ),
)
