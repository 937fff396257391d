from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "detect",
    "the first look for a sidecar, in a new interpreter; one of those that follow",
    (
        Row("sidecar detection at start", "first look", at_most=5.0, unit="ms"),
        Row("a look after that", "next look", unit="µs"),
    ),
    place=6,
)
