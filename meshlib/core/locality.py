"""Which endpoints a call may go to: priorities, panic, locality weights.

Theory (Envoy's; ED-07, ED-08). The endpoints of one priority are a *level*. A level's health is its share of usable
endpoints times the overprovisioning factor (140 %), at most 100: so a level keeps all its load until more than 28 % of
it is gone, and only then spills to the next. Levels take their health's worth of the load in order of priority until
100 % are given out; if all levels together have less than 100 %, each gets its part of what there is. Degraded endpoints
take only what the usable ones of all levels leave.

    usable in level 0   load of level 0 / level 1 (whole)
    72 %                100 / 0
    71 %                 99 / 1
    50 %                 70 / 30

*Panic*: where all levels together have less than 100 % and fewer than ``panic_threshold`` percent of a level are usable,
its load goes to all of its endpoints, since what is said of health is then more likely wrong than right. If nobody is
usable anywhere, all levels share by their size. A threshold of 0 switches panic off: then nobody is called. An endpoint
whose TLS cannot be had is never called, panic or not.

*Locality weights*: with ``locality_weighted`` a locality is drawn first, by its weight times its own health (same
factor); one without a weight gets nothing (DV-15). In panic they do not count.

Integer percent throughout, as in Envoy, so that both split alike.

*gRPC's rules* (:func:`grpc_balance`; ED-01, ED-04, ED-07, ED-08, LB-01, LB-02, LB-11): the first priority that has anybody
takes all the load, a locality its whole weight as long as it has anybody, endpoint weights count in no turn, degraded
endpoints are never called and nobody panics. An endpoint is passed over, too, while channels cannot connect to it, and
where that holds for all, for none.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from meshlib.core.balance.picker import make_picker
from meshlib.core.endpoint import Down
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.balance.picker import Picker
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import Balancing

__all__ = ["Balance", "Group", "describe", "grpc_balance", "split_load", "without_answer"]

#: Picks that may fall on an endpoint already tried before one is looked for.
_REPICKS = 3
#: A factor by which a level or a locality with anybody usable is as good as whole.
_WHOLE = 10**9


@dataclass(slots=True)
class Group:
    """The live endpoints of one locality at one priority."""

    priority: int
    weight: int | None
    endpoints: list[LiveEndpoint] = field(default_factory=list)


@dataclass(slots=True)
class _Share:
    """What of a level may be called: its endpoints, by locality with the weight that each locality has now."""

    endpoints: list[LiveEndpoint]
    parts: list[tuple[float, list[LiveEndpoint]]]


class _Level:
    """One priority: how much of it is usable, and in which shares."""

    __slots__ = ("degraded", "everybody", "healthy", "size")

    def __init__(
        self, groups: Sequence[Group], factor: int, give_way: Callable[[], object], grpc: bool | None
    ) -> None:
        self.size = sum(len(group.endpoints) for group in groups)
        everybody = [item for group in groups for item in group.endpoints if not item.down & Down.TLS]
        self.everybody = _Share(everybody, [])
        self.healthy = _share(groups, factor, give_way, degraded=False, reached=bool(grpc))
        self.degraded = _share(groups, factor, give_way, degraded=True) if grpc is None else _Share([], [])

    def health(self, share: _Share, factor: int) -> int:
        return min(100, factor * len(share.endpoints) // self.size) if self.size else 0

    def panics(self, threshold: float) -> bool:
        usable = len(self.healthy.endpoints) + len(self.degraded.endpoints)
        return threshold > 0 and (100.0 * usable / self.size if self.size else 0.0) < threshold


def _share(
    groups: Sequence[Group],
    factor: int,
    give_way: Callable[[], object],
    *,
    degraded: bool,
    reached: bool = False,
) -> _Share:
    found: list[LiveEndpoint] = []
    parts: list[tuple[float, list[LiveEndpoint]]] = []
    for group in groups:
        give_way()
        usable = [
            item
            for item in group.endpoints
            if not item.down and (item.endpoint.health is Health.DEGRADED) is degraded
        ]
        if reached:
            usable = [item for item in usable if not item.unreached]
        found += usable
        if usable and group.weight:
            ratio = len(usable) / len(group.endpoints)
            parts.append((group.weight * min(1.0, factor / 100.0 * ratio), usable))
    return _Share(found, parts)


class _Pool:
    """Pickers over one share."""

    __slots__ = ("_ends", "_only", "_pickers", "_random", "endpoints")

    def __init__(self, share: _Share, balancing: Balancing, random: Callable[[], float]) -> None:
        self.endpoints = share.endpoints
        self._random = random
        parts = share.parts if balancing.locality_weighted else []
        members = [members for _, members in parts] or [share.endpoints]
        self._ends = list(accumulate(weight for weight, _ in parts))
        self._pickers = [make_picker(balancing, part, random) for part in members]
        self._only = self._pickers[0] if len(self._pickers) == 1 else None

    def picker(self) -> Picker:
        if self._only is not None:
            return self._only
        pickers = self._pickers
        index = bisect_right(self._ends, self._random() * self._ends[-1])
        return pickers[min(index, len(pickers) - 1)]


class Balance:
    """A choice among all endpoints of a cluster as they are now. Not thread-safe; O(1) or O(log n) a pick.

    Made anew (O(n)) when an endpoint comes, goes, or changes its health or weight; all that must survive that is in
    the endpoints.

    Args:
        groups: All endpoints. ``priority`` need not be gapless.
        balancing: The cluster's.
        factor: ``overprovisioning_factor`` in percent.
        random: Gives floats in [0, 1).
        give_way: Called between steps that look at one locality each.
        grpc: By gRPC's rules (see :func:`grpc_balance`): True passes endpoints over that cannot be connected to.
    """

    __slots__ = ("_ends", "_only", "_pools", "_random")

    def __init__(
        self,
        groups: Sequence[Group],
        balancing: Balancing,
        factor: int,
        random: Callable[[], float],
        give_way: Callable[[], object] = bool,
        *,
        grpc: bool | None = None,
    ) -> None:
        self._random = random
        self._pools: list[_Pool] = []
        loads: list[int] = []
        levels = _levels(groups, factor, give_way, grpc)
        for load, share in _loads(levels, factor, balancing.panic_threshold):
            give_way()
            if load and share.endpoints:
                loads.append(load)
                self._pools.append(_Pool(share, balancing, random))
        self._ends = list(accumulate(loads))
        self._only = self._pools[0] if len(self._pools) == 1 else None

    @property
    def empty(self) -> bool:
        """Whether nobody may be called."""
        return not self._pools

    def pick(self, context: PickContext) -> LiveEndpoint | None:
        """An endpoint, one not in ``context.tried`` while its level has one; None where nobody may be called."""
        pool = self._only or self._drawn()
        if pool is None:
            return None
        endpoint = pool.picker().pick(context)
        tried = context.tried
        if not tried or endpoint not in tried:
            return endpoint
        for _ in range(_REPICKS):
            other = pool.picker().pick(context)
            if other not in tried:
                return other
        return self._untried(pool, tried) or endpoint

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        """What ``pick`` would give, or might where chance decides; moves nothing on."""
        pool = self._only or self._drawn()
        if pool is None:
            return None
        endpoint = pool.picker().peek(context)
        if endpoint in context.tried:
            return self._untried(pool, context.tried) or endpoint
        return endpoint

    def _drawn(self) -> _Pool | None:
        if not self._pools:
            return None
        return self._pools[bisect_right(self._ends, int(self._random() * self._ends[-1]))]

    def _untried(self, pool: _Pool, tried: tuple[LiveEndpoint, ...]) -> LiveEndpoint | None:
        """One that was not tried, looked for from a random place; ends after as many steps as were tried, plus one."""
        endpoints = pool.endpoints
        start = int(self._random() * len(endpoints))
        for step in range(len(endpoints)):
            endpoint = endpoints[start + step - len(endpoints)]
            if endpoint not in tried:
                return endpoint
        return None


def grpc_balance(groups: Sequence[Group], balancing: Balancing, random: Callable[[], float]) -> Balance:
    """The balance by gRPC's rules."""
    rules = replace(balancing, locality_weighted=True, panic_threshold=0.0, endpoint_weights=False)
    balance = Balance(groups, rules, _WHOLE, random, grpc=True)
    return balance if not balance.empty else Balance(groups, rules, _WHOLE, random, grpc=False)


def _levels(
    groups: Sequence[Group], factor: int, give_way: Callable[[], object], grpc: bool | None
) -> list[_Level]:
    by_priority: dict[int, list[Group]] = {}
    for group in groups:
        by_priority.setdefault(group.priority, []).append(group)
    return [_Level(by_priority[priority], factor, give_way, grpc) for priority in sorted(by_priority)]


def _loads(levels: Sequence[_Level], factor: int, threshold: float) -> list[tuple[int, _Share]]:
    healthy = [level.health(level.healthy, factor) for level in levels]
    degraded = [level.health(level.degraded, factor) for level in levels]
    total = min(100, sum(healthy) + sum(degraded))
    if total == 0:
        return [(level.size, level.everybody) for level in levels] if threshold > 0 else _first_usable(levels)
    first, second = split_load(healthy, degraded)
    loads: list[tuple[int, _Share]] = []
    for index, level in enumerate(levels):
        if total < 100 and level.panics(threshold):
            loads.append((first[index] + second[index], level.everybody))
        else:
            loads += [(first[index], level.healthy), (second[index], level.degraded)]
    return loads


def _first_usable(levels: Sequence[_Level]) -> list[tuple[int, _Share]]:
    """Without panic: few usable endpoints whose health rounds to nothing are still the ones to call."""
    shares = [level.healthy for level in levels] + [level.degraded for level in levels]
    return next(([(100, share)] for share in shares if share.endpoints), [])


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


def without_answer(cluster: Cluster) -> str:
    """What ends a sentence on a cluster that has nobody to call: what the resolver or the control plane said, or that nothing
    came yet.
    """
    if cluster.unresolved or cluster.unassigned:
        return f": {cluster.unresolved or cluster.unassigned}"
    if cluster.assignment is not None:
        return ""
    if cluster.dns:
        return f": no answer yet for {', '.join(target.name for target in cluster.dns)}"
    return ": its endpoints have not come yet" if cluster.discovery is Discovery.EDS else ""


def describe(endpoints: Sequence[LiveEndpoint]) -> str:
    """Why nobody among ``endpoints`` can be called, in words."""
    if not endpoints:
        return "has no endpoint"
    counts = {
        "unhealthy": sum(bool(item.down & Down.CONTROL_PLANE) for item in endpoints),
        "ejected": sum(item.down & (Down.CONTROL_PLANE | Down.EJECTED) == Down.EJECTED for item in endpoints),
        "behind TLS that cannot be had": sum(item.down == Down.TLS for item in endpoints),
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"has no usable endpoint among {len(endpoints)}" + (f" ({words})" if words else "")
