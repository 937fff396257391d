from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "async",
    "50 tasks of one event loop, each one call after the other",
    (
        Row(
            "meshlib.AsyncClient ÷ httpx.AsyncClient", "meshlib.AsyncClient", "httpx.AsyncClient", at_most=0.5
        ),
        Row(
            "meshlib.httpx2.AsyncClient ÷ httpx2.AsyncClient",
            "meshlib.httpx2.AsyncClient",
            "httpx2.AsyncClient",
        ),
    ),
    place=2,
)
