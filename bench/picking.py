"""``python -m bench.picking``: what the choice of an endpoint costs a call, for each balancer among 10, 1,000 and 100,000 endpoints.

Measured is what a call does with its cluster and nothing else: ``pick``, the report of an answer, ``release``, with their locks and
counters, on `meshlib.runtime.live.LiveCluster`. The balancers take turns, in an order that is drawn anew each round; shown is the median
of the rounds, in microseconds, and beside it how many times round robin's among as many endpoints it is. *Made* is how long the cluster of the most
endpoints takes to be made, tables and all, in milliseconds: it is made beside calls, and only where endpoints come or go.

Information: there is no bound. All balancers but the full scan look at a few endpoints, however many there are.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Iterator

from bench.table import machine
from meshlib.core.upstream import PickContext, Refusal
from meshlib.core.zones import Caller
from meshlib.model.address import Address
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.policy import Aperture, Balancer, Balancing, SlowStart, ZoneAware
from meshlib.model.subset import LB_SCOPE, Selector, Subsets, labels_of
from meshlib.runtime.live import LiveCluster

SIZES = (10, 1_000, 100_000)
#: Where the caller is.
HERE = Locality(zone="here")
#: Of a table of Maglev for the most endpoints: it needs a place for each.
_LARGE_TABLE = 655_373
#: How many seconds a sample takes, about, and how many picks it has at least.
_SAMPLE, _LEAST = 0.02, 3
_WARM = 200  # picks before the first sample, so that what is made at a first pick is there


def balancers() -> dict[str, tuple[Balancing, bool]]:
    """By what they are called in the table: each with whether its endpoints have different weights."""
    kinds = Balancer
    return {
        "round_robin": (Balancing(kinds.ROUND_ROBIN), False),
        "round_robin, weights": (Balancing(kinds.ROUND_ROBIN), True),
        "random": (Balancing(kinds.RANDOM), False),
        "least_request": (Balancing(kinds.LEAST_REQUEST), False),
        "least_request, weights": (Balancing(kinds.LEAST_REQUEST), True),
        "least_request, full scan": (Balancing(kinds.LEAST_REQUEST, full_scan=True), False),
        "peak_ewma": (Balancing(kinds.PEAK_EWMA), False),
        "orca": (Balancing(kinds.ORCA), False),
        "pick_first": (Balancing(kinds.PICK_FIRST), False),
        "ring_hash": (Balancing(kinds.RING_HASH), False),
        "ring_hash, bounded": (Balancing(kinds.RING_HASH, load_factor=150), False),
        "maglev": (Balancing(kinds.MAGLEV), False),
        "least_request, slow start": (Balancing(kinds.LEAST_REQUEST, slow_start=SlowStart(30.0)), False),
        "round_robin, zones": (Balancing(zones=ZoneAware(minimum=0)), False),
        "round_robin, subsets": (Balancing(subsets=Subsets((Selector(("version",)),))), False),
        "round_robin, random subset": (Balancing(aperture=Aperture(9)), False),
        "round_robin, aperture": (Balancing(aperture=Aperture(9, 3, 7)), False),
    }


def cluster(balancing: Balancing, size: int, *, weights: bool) -> Cluster:
    """``size`` endpoints: of one locality, or, where zones matter, most of them in another than the caller's; of ten versions, where
    there are subsets.
    """
    if balancing.kind is Balancer.MAGLEV and size > balancing.table_size:
        balancing = Balancing(Balancer.MAGLEV, table_size=_LARGE_TABLE)
    endpoints = tuple(
        Endpoint(
            Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 8080),
            weight=1 + number % 3 if weights else 1,
            metadata={} if balancing.subsets is None else {LB_SCOPE: {"version": str(number % 10)}},
        )
        for number in range(size)
    )
    near = size // 3 if balancing.zones is not None else size
    groups = [
        LocalityEndpoints(Locality(zone=zone), held, 1)
        for zone, held in ((HERE.zone, endpoints[:near]), ("there", endpoints[near:]))
        if held
    ]
    return Cluster("reviews", assignment=Assignment("reviews", tuple(groups)), balancing=balancing)


class Chosen:
    """A balancer among so many endpoints, and how long a call's choice took, by round."""

    def __init__(self, balancing: Balancing, size: int, *, weights: bool, seed: int) -> None:
        drawn = random.Random(seed)
        order = cluster(balancing, size, weights=weights)
        begun = time.perf_counter()
        self._live = LiveCluster(
            order,
            drawn.random,
            lambda _: None,
            time.monotonic,
            time.monotonic(),
            lambda: False,
            Caller(HERE),
        )
        self._labels = labels_of({"version": "2"})
        self._hashes = [drawn.getrandbits(64) for _ in range(1024)]
        self._calls(1)
        self.made = time.perf_counter() - begun
        self._count = _LEAST
        took = self._calls(_LEAST)
        if took < _SAMPLE:
            took = self._calls(_WARM) * _LEAST / _WARM
        self._count = max(_LEAST, int(_SAMPLE * _LEAST / took))
        self.samples: list[float] = []

    def sample(self) -> None:
        gc.collect()
        self.samples.append(self._calls(self._count) / self._count)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def _calls(self, count: int) -> float:
        """How long so many take, in seconds."""
        live, hashes, labels = self._live, self._hashes, self._labels
        outcome = Outcome(OutcomeKind.OK, 200, None, True, 0.01)
        begun = time.perf_counter()
        for number in range(count):
            now = time.monotonic()
            context = PickContext(hash=hashes[number & 1023])
            if live.labelled:
                context.labels = labels
            picked = live.pick(context, now)
            assert not isinstance(picked, Refusal)
            picked.report(outcome, now)
            picked.release(now)
        return time.perf_counter() - begun


def measure(sizes: tuple[int, ...], rounds: int, seed: int = 1) -> dict[str, list[Chosen]]:
    """Every balancer among so many endpoints each."""
    drawn = random.Random(seed)
    found: dict[str, list[Chosen]] = {name: [] for name in balancers()}
    for size in sizes:
        for name, (balancing, weights) in balancers().items():
            found[name].append(Chosen(balancing, size, weights=weights, seed=seed))
        turn = [chosen[-1] for chosen in found.values()]
        for _ in range(rounds):
            drawn.shuffle(turn)
            for chosen in turn:
                chosen.sample()
    return found


def render(sizes: tuple[int, ...], found: dict[str, list[Chosen]]) -> Iterator[str]:
    """Plain text, a line a balancer."""
    width = max(map(len, found))
    yield " " * width + "".join(f"{size:>16,}" for size in sizes) + f"{'made':>12}"
    first = next(iter(found.values()))
    for name, chosen in found.items():
        cells = "".join(
            f"{each.median * 1e6:9.1f} {each.median / beside.median:5.2f}×"
            for each, beside in zip(chosen, first, strict=True)
        )
        yield f"{name.ljust(width)}{cells}{chosen[-1].made * 1e3:9.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.picking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each (15)")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("--rounds: at least 1")
    print(f"{machine()}; {asked.rounds} rounds; µs of a call, and times round robin's\n")
    print("\n".join(render(SIZES, measure(SIZES, asked.rounds))))


if __name__ == "__main__":
    main()
