"""``python -m bench.chaos [--calls N] [--rate R] [--seed S]``: calls through a real Envoy and through meshlib, of one configuration, while
endpoints are killed, stopped, slowed, reset and silent, and a control plane changes their weights each second. One table; exit code 1 if
meshlib's calls fail more often than chance explains, or if its p99 is worse by more than a twentieth.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial

from bench.chaos.stage import ENDPOINTS, PAIRS, Side, run
from bench.table import machine

_HEAD = ("", "through", "calls", "failed", "share", "p50", "p99", "p99.9", "longest", "retries")


def table(sides: Sequence[Side]) -> str:
    lines = [_HEAD, *(_line(side) for side in sides)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    shown = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    kinds = [
        f"{side.pair}, {side.name}: "
        + (", ".join(f"{count} {kind}" for kind, count in side.failures.most_common()) or "none failed")
        for side in sides
    ]
    return "\n".join([*shown, "", *kinds])


def _line(side: Side) -> tuple[str, ...]:
    return (
        side.pair,
        side.name,
        f"{side.calls:,}",
        f"{sum(side.failures.values()):,}",
        f"{side.failed:.3%}",
        *(f"{side.quantile(part) * 1e3:.1f} ms" for part in (0.5, 0.99, 0.999, 1.0)),
        f"{side.extra:,}",
    )


def worse(sides: Sequence[Side], beyond: float = 2.0, late: float = 1.05) -> list[str]:
    """Where meshlib is worse than the Envoy beside it, in words. Who is at an endpoint when it breaks in the middle of an answer is chance:
    failures are told apart ``beyond`` so many standard deviations of the difference of two such counts, and the p99 from ``late`` times
    the other's on.
    """
    found = []
    for envoy, ours in zip(sides[::2], sides[1::2], strict=True):
        counts = [sum(each.failures.values()) for each in (envoy, ours)]
        if counts[1] - counts[0] > beyond * math.sqrt(sum(counts)):
            found.append(f"{ours.pair}: {ours.failed:.3%} failed, {envoy.failed:.3%} through Envoy")
        if ours.quantile(0.99) > late * envoy.quantile(0.99):
            found.append(
                f"{ours.pair}: p99 {ours.quantile(0.99) * 1e3:.1f} ms, {envoy.quantile(0.99) * 1e3:.1f} ms through Envoy"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of each side (100000)")
    parser.add_argument("--rate", type=float, default=150.0, help="calls a second of each side (150)")
    parser.add_argument("--callers", type=int, default=48, help="threads, or tasks, of each side (48)")
    parser.add_argument("--seed", type=int, default=1, help="of what breaks and when (1)")
    parser.add_argument("--only", choices=PAIRS, help="one pair")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    asked = parser.parse_args()
    print(f"{machine()}; {ENDPOINTS} endpoints, {asked.rate:g} calls a second a side, seed {asked.seed}\n")
    sides = run(
        calls=asked.calls,
        rate=asked.rate,
        callers=asked.callers,
        seed=asked.seed,
        pairs=(asked.only,) if asked.only else PAIRS,
        told=bool if asked.quiet else partial(print, flush=True),
    )
    print(f"\n{table(sides)}")
    lost = worse(sides)
    for line in lost:
        print(f"WORSE  {line}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
