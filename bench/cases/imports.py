from __future__ import annotations

from bench.shapes import Case, Row

CASE = Case(
    "import",
    "in a new interpreter; grpc, protobuf and httpx stay unloaded",
    (Row("import meshlib", "import meshlib", at_most=60.0, unit="ms"),),
    place=5,
)
