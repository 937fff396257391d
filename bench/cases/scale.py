from __future__ import annotations

from bench.shapes import Case, Row


def _rows(protocol: str) -> tuple[Row, ...]:
    ours, theirs = f"scale: meshlib, {protocol}: ", f"scale: Envoy, {protocol}: "
    return (
        Row(f"first load, {protocol} ÷ Envoy's", f"{ours}load", f"{theirs}load", at_most=2.0),
        Row(f"the same, processor time, {protocol} ÷ Envoy's", f"{ours}used", f"{theirs}used"),
        Row(f"one endpoint changed, {protocol}, p99", f"{ours}change", at_most=50.0, unit="ms"),
        Row(f"the same ÷ Envoy's, {protocol}", f"{ours}change", f"{theirs}change"),
        Row(f"the same, median, {protocol} ÷ Envoy's", f"{ours}change, median", f"{theirs}change, median"),
        Row(
            f"resident memory, {protocol} ÷ Envoy's",
            f"{ours}memory",
            f"{theirs}memory",
            at_most=1.5,
            unit="MiB",
        ),
        Row(f"p99 of calls rises by, changes, {protocol}", f"{ours}rise, changes", at_most=10.0, unit="ms"),
        Row(f"p99 of calls rises by, all comes, {protocol}", f"{ours}rise, fill", at_most=10.0, unit="ms"),
        Row(f"all has come while calls go on, {protocol}", f"{ours}fill", unit="ms"),
    )


CASE = Case(
    "scale",
    "1,000 clusters of 100 endpoints each from one control plane, until it is acknowledged, with 4 threads that call all the time",
    (*_rows("delta"), *_rows("sotw")),
    most=5,
)
