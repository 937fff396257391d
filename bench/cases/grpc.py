from __future__ import annotations

from bench.shapes import Case, Row

_BOUNDS = (
    ("channel", "", 1.10),
    ("channel", ", stream", 1.05),
    ("aio.channel", "", 1.15),
    ("aio.channel", ", stream", 1.05),
)


#: Beside grpc's own TLS: what a thread that hands bytes on may add (docs/decisions/0058-grpc-over-our-own-tls.md).
_TUNNELLED = (
    ("channel", "", 1.75),
    ("channel", ", stream", 1.50),
    ("aio.channel", "", 1.90),
    ("aio.channel", ", stream", 2.25),
)


def _rows(
    kind: str, beside: str = "", bounds: tuple[tuple[str, str, float], ...] = _BOUNDS
) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"meshlib.grpc.{what}{kind}{form} ÷ grpcio's",
            f"meshlib.grpc.{what}{kind}{form}",
            f"grpcio.{what}{beside or kind}{form}",
            at_most=bound,
        )
        for what, form, bound in bounds
    )


CASE = Case(
    "grpc",
    "one server: one thread, or 50 tasks, one RPC after the other; streams of 200 messages of 1 KiB, a sample is of a message",
    (
        *_rows(""),
        *_rows(", TLS"),
        *_rows(", TLS of the mesh", ", TLS", _TUNNELLED),
        *_rows(", xds"),
        Row(
            "resident memory of an endpoint, of 100",
            "meshlib.grpc.channel, memory of an endpoint",
            at_most=100.0,
            unit="KiB",
        ),
        Row(
            "threads that 100 endpoints add",
            "meshlib.grpc.channel, threads of 100 endpoints",
            at_most=4.0,
            unit="threads",
        ),
    ),
)
