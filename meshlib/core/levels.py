"""How the load falls on levels: the priorities of a cluster, or of all the clusters of an aggregate. Percent, whole numbers, as in Envoy
(`meshlib.core.locality` has the theory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALL", "LevelHealth", "level_loads", "split_load"]

#: Percent.
ALL = 100


class LevelHealth(NamedTuple):
    """A level in numbers: its priority, its endpoints, those that count, how many of them may be called, and the percent that
    its usable and its degraded ones are worth.
    """

    priority: int
    total: int
    size: int
    usable: int
    healthy: int
    degraded: int

    def panics(self, threshold: float) -> bool:
        return threshold > 0 and (100.0 * self.usable / self.size if self.size else 0.0) < threshold


def level_loads(levels: Sequence[LevelHealth], threshold: float) -> tuple[list[int], list[int]]:
    """The percent of the load that falls on each level: on its usable endpoints, and on its degraded ones. All levels in panic share by
    their size. All 0 where nobody is usable and health counts.
    """
    total = sum(level.healthy + level.degraded for level in levels)
    if total < ALL and levels and all(level.panics(threshold) for level in levels):
        sizes = [level.total for level in levels]
        loads = [ALL * size // max(1, sum(sizes)) for size in sizes]
        loads[next((index for index, size in enumerate(sizes) if size), 0)] += ALL - sum(loads)
        return loads, [0] * len(loads)
    if total == 0:
        return [0] * len(levels), [0] * len(levels)
    return split_load([level.healthy for level in levels], [level.degraded for level in levels])


def split_load(healthy: Sequence[int], degraded: Sequence[int]) -> tuple[list[int], list[int]]:
    """How 100 percent of the load fall on the levels: on their usable endpoints, and on their degraded ones.

    The arguments are each level's health in percent, not all 0. What integer division leaves over goes to the first
    level that has anything.
    """
    total = min(100, sum(healthy) + sum(degraded))
    left = 100
    split: list[list[int]] = []
    for healths in (healthy, degraded):
        loads = []
        for health in healths:
            load = min(left, health * 100 // total)
            loads.append(load)
            left -= load
        split.append(loads)
    if left:
        kind = 0 if any(healthy) else 1
        source = (healthy, degraded)[kind]
        split[kind][next(index for index, health in enumerate(source) if health)] += left
    return split[0], split[1]
