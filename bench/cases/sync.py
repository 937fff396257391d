from __future__ import annotations

from bench.shapes import Case, Row


def _rows(ours: str, bare: str, bound: float) -> tuple[Row, ...]:
    return (
        Row(f"{ours} ÷ {bare}", ours, bare, at_most=bound),
        *(
            Row(f"the same, {what}", f"{ours}, {kind}", f"{bare}, {kind}", at_most=at_most)
            for what, kind, at_most in (
                ("over TLS", "TLS", bound),
                ("a POST of 64 KiB", "POST", bound),
                ("a download of 10 MiB", "download", 1.0),
                ("1 KiB in 100 chunks", "chunks", bound),
            )
        ),
    )


CASE = Case(
    "sync",
    "one thread, one call after the other",
    (
        *_rows("meshlib.Client", "httpx.Client", 0.65),
        Row("meshlib.Client ÷ httpx.Client through Envoy", "meshlib.Client", "httpx.Client via Envoy"),
        *_rows("meshlib.httpx2.Client", "httpx2.Client", 0.70),
    ),
    place=1,
)
