"""Finds peers and cases, measures in rounds, and says what came of it."""

from __future__ import annotations

import importlib
import pkgutil
import random
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import bench.cases
import bench.peers
from bench.shapes import Case, Peer, Row, Unavailable
from bench.world import World

#: What a peer gives is seconds, but for what has another unit.
_UNITS = {"µs": 1e6, "ms": 1e3, "KiB": 1.0, "MiB": 1.0, "threads": 1.0}


@dataclass(frozen=True, slots=True)
class Spread:
    """Samples of one peer, in seconds for one call."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        return cls(min(samples), statistics.median(samples), max(samples))

    def to_dict(self) -> dict[str, float]:
        return {"min": self.least, "median": self.median, "max": self.most}


@dataclass(frozen=True, slots=True)
class Result:
    """A row, measured. ``value`` is the ratio of the medians, or the median in the row's unit."""

    case: Case
    row: Row
    peer: Spread
    against: Spread | None

    @property
    def value(self) -> float:
        if self.against is not None:
            return self.peer.median / self.against.median
        return self.peer.median * _UNITS[self.row.unit]

    @property
    def holds(self) -> bool:
        return self.row.at_most is None or self.value <= self.row.at_most

    def to_dict(self) -> dict[str, Any]:
        return {
            "case": self.case.name,
            "what": self.row.what,
            "value": self.value,
            "unit": self.row.unit or "ratio",
            "at_most": self.row.at_most,
            "holds": self.holds,
            "peer": {"name": self.row.peer, "seconds": self.peer.to_dict()},
            "against": self.against and {"name": self.row.against, "seconds": self.against.to_dict()},
        }


def cases() -> list[Case]:
    """All cases, in their order."""
    return sorted((module.CASE for module in _modules(bench.cases)), key=lambda case: (case.place, case.name))


def peers() -> dict[str, Peer]:
    """All peers by name."""
    found: dict[str, Peer] = {}
    for module in _modules(bench.peers):
        for peer in module.PEERS:
            if peer.name in found:
                raise ValueError(f"two peers are called {peer.name!r}")
            found[peer.name] = peer
    return found


def _modules(package: Any) -> list[Any]:
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def measure(chosen: list[Case], rounds: int, seed: int) -> tuple[list[Result], dict[str, str]]:
    """All peers of the cases in ``rounds``, each round in an order of its own: a slow minute of the machine hits all.

    Answers also which peers cannot be measured here, and why; rows that name them are left out.
    """
    known = peers()
    names = sorted({name for case in chosen for name in case.peers})
    order = random.Random(seed)
    world, opened = World(), []
    missing: dict[str, str] = {}
    try:
        for name in names:
            opened.append(known[name])
            try:
                known[name].open(world)
            except Unavailable as reason:
                missing[name] = str(reason)
        names = [name for name in names if name not in missing]
        samples: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            _say(f"round {number + 1} of {rounds}")
            order.shuffle(names)
            enough = {name for case in chosen if number >= case.most for name in case.peers}
            for name in [name for name in names if name not in enough]:
                samples[name].append(known[name].sample())
    finally:
        _say("")
        for peer in reversed(opened):
            peer.close()
        world.close()
    spreads = {name: Spread.of(found) for name, found in samples.items()}
    results = [
        Result(case, row, spreads[row.peer], spreads[row.against] if row.against else None)
        for case in chosen
        for row in case.rows
        if not missing.keys() & {row.peer, row.against}
    ]
    return results, missing


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
