"""``python -m bench.sim``: the tables of all cases, and with ``--plots FOLDER`` their curves as SVG (needs matplotlib)."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.sim.cases import CASES, Row


def table(rows: list[Row]) -> str:
    """In text, aligned."""
    heads = ["", *rows[0].values]
    lines = [heads, *([row.name, *row.values.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def plot(name: str, axis: str, rows: list[Row], folder: Path) -> None:
    """Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"  # the same bytes each time
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2))
    for row in rows:
        axes.plot(*zip(*row.curve.points, strict=True), label=row.curve.name, linewidth=1.2)
    axes.set_xlabel("seconds")
    axes.set_ylabel(axis)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / f"sim-{name.replace('_', '-')}.svg", metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sim", description=__doc__)
    parser.add_argument("--only", action="append", choices=CASES, help="a case; may be given more than once")
    parser.add_argument("--plots", type=Path, help="write the curves there, as SVG")
    asked = parser.parse_args()
    for name in asked.only or CASES:
        make, axis = CASES[name]
        rows = list(make())
        words = " ".join((make.__doc__ or "").split())
        print(f"\n{name}: {words}\n\n{table(rows)}", flush=True)
        if asked.plots is not None:
            plot(name, axis, rows, asked.plots)


if __name__ == "__main__":
    main()
