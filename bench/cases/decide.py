from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "decide",
    "a call without its I/O: resolve, match, pick, plan, outcome, close",
    (
        Row("decide, 100 routes × 50 endpoints", "decide 100 × 50", at_most=12.0, unit="µs"),
        Row("decide, 5,000 × 10,000 ÷ 100 × 50", "decide 5,000 × 10,000", "decide 100 × 50", at_most=1.2),
    ),
    place=4,
)
