from __future__ import annotations

from bench.shapes import Case, Row


def _rows(ours: str, bare: str, one: float, many: float) -> tuple[Row, ...]:
    return (
        Row(f"{ours} ÷ {bare}", ours, bare, at_most=many),
        *(
            Row(f"the same, {what}", f"{ours}, {kind}", f"{bare}, {kind}", at_most=at_most)
            for what, kind, at_most in (
                ("1 task", "1 task", one),
                ("over TLS", "TLS", many),
                ("a POST of 64 KiB", "POST", many),
                ("1 task, a download of 10 MiB", "download", 1.0),
                ("1 KiB in 100 chunks", "chunks", many),
            )
        ),
    )


CASE = Case(
    "async",
    "50 tasks of one event loop, each one call after the other",
    (
        *_rows("meshlib.AsyncClient", "httpx.AsyncClient", 0.50, 0.20),
        *_rows("meshlib.httpx2.AsyncClient", "httpx2.AsyncClient", 0.70, 0.45),
    ),
    place=2,
)
