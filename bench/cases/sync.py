from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "sync",
    "one thread, one call after the other",
    (
        Row("meshlib.Client ÷ httpx.Client", "meshlib.Client", "httpx.Client", at_most=1.15),
        Row("meshlib.Client ÷ httpx.Client through Envoy", "meshlib.Client", "httpx.Client via Envoy"),
        Row("meshlib.httpx2.Client ÷ httpx2.Client", "meshlib.httpx2.Client", "httpx2.Client"),
    ),
    place=1,
)
