from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "requests",
    "requests: one thread, one call after the other; and 8 threads that share a session",
    (
        Row(
            "meshlib_requests.Session ÷ requests.Session",
            "meshlib_requests.Session",
            "requests.Session",
            at_most=0.50,
        ),
        Row(
            "the same, 8 threads",
            "meshlib_requests.Session × 8",
            "requests.Session × 8",
            at_most=0.50,
        ),
        Row(
            "meshlib_requests.Session ÷ Junction's",
            "meshlib_requests.Session",
            "Junction's Session",
            at_most=0.75,
        ),
        Row(
            "meshlib_requests.PoolManager ÷ urllib3.PoolManager",
            "meshlib_requests.PoolManager",
            "urllib3.PoolManager",
        ),
    ),
)
