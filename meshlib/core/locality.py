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
its load goes to all of its endpoints, since what is said of health is then more likely wrong than right. If that holds for
all levels, they share by their size. A threshold of 0 switches panic off: then nobody is called who is not usable. An endpoint
whose TLS cannot be had is never called, panic or not.

*Locality weights*: with ``locality_weighted`` a locality is drawn first, by its weight times its own health (same
factor); one without a weight gets nothing (DV-15). In panic they do not count. Without them calls may be kept in their own locality
(`meshlib.core.zones`).

Integer percent throughout, as in Envoy, so that both split alike.

*Consistent hashing* (LB-03, LB-05) looks at all endpoints of a level at once: the hash of the call chooses the level, by the same
loads, and then the endpoint, by weights into which those of the localities went, whatever of a locality is usable. Panic counts
them too. The degraded are called where nobody else is.

*gRPC's rules* (:func:`grpc_balance`; ED-01, ED-04, ED-07, ED-08, LB-01, LB-02, LB-11): the first priority that has anybody
takes all the load, a locality its whole weight as long as it has anybody, endpoint weights count in no turn, degraded
endpoints are never called and nobody panics. An endpoint is passed over, too, while channels cannot connect to it, and
where that holds for all, for none.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from meshlib.core.balance.aperture import Partial
from meshlib.core.balance.consistent import Consistent, Tables, hash_key
from meshlib.core.balance.picker import make_picker, make_table
from meshlib.core.balance.weights import normalized
from meshlib.core.endpoint import Down
from meshlib.core.levels import ALL, LevelHealth, level_loads
from meshlib.core.zones import zones_of
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import NOWHERE, Locality

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meshlib.core.balance.picker import Picker
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.core.zones import Caller
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import Balancing

__all__ = ["Balance", "Group", "describe", "grpc_balance", "without_answer"]

#: Picks that may fall on an endpoint already tried before one is looked for.
_REPICKS = 3
#: A factor by which a level or a locality with anybody usable is as good as whole.
_WHOLE = 10**9
#: gRFC A42: ``grpc.lb.ring_hash.ring_size_cap``, by default.
_GRPC_PLACES = 4096


@dataclass(slots=True)
class Group:
    """The live endpoints of one locality at one priority."""

    priority: int
    weight: int | None
    endpoints: list[LiveEndpoint] = field(default_factory=list)
    locality: Locality = NOWHERE


@dataclass(slots=True)
class _Share:
    """What of a level may be called: its endpoints, by locality with the weight that each locality has now (``parts``), and with the
    one that it was given (``given``), and with the part of the calls that is divided among localities without weights (``near``).
    ``panic``: health does not count; ``closed``: nobody is called in its place. ``by_group``: whom each group has of them.
    """

    endpoints: list[LiveEndpoint]
    parts: list[tuple[float, list[LiveEndpoint]]] = field(default_factory=list)
    given: list[tuple[float, list[LiveEndpoint]]] = field(default_factory=list)
    near: list[tuple[float, Sequence[LiveEndpoint]]] = field(default_factory=list)
    panic: bool = False
    closed: bool = False
    by_group: list[list[LiveEndpoint]] = field(default_factory=list)


class _Level:
    """One priority: how much of it is usable, and in which shares."""

    __slots__ = ("blind", "degraded", "everybody", "groups", "healthy", "size", "total")

    def __init__(
        self,
        groups: Sequence[Group],
        factor: int,
        give_way: Callable[[], object],
        grpc: bool | None,
        blind: int,
    ) -> None:
        self.groups = groups
        self.blind = blind
        self.total = sum(len(group.endpoints) for group in groups)
        self.size = sum(_counted(group) for group in groups)
        callable_ = [
            (float(group.weight or 0), [item for item in group.endpoints if not item.down & Down.TLS])
            for group in groups
        ]
        everybody = [item for _, members in callable_ for item in members]
        self.everybody = _Share(everybody, given=callable_, panic=True)
        self.healthy = _share(groups, factor, give_way, degraded=False, reached=bool(grpc), blind=blind)
        self.degraded = _share(groups, factor, give_way, degraded=True) if grpc is None else _Share([])

    @property
    def priority(self) -> int:
        return self.groups[0].priority

    def told(self, factor: int) -> LevelHealth:
        usable = len(self.healthy.endpoints), len(self.degraded.endpoints)
        worth = (min(100, factor * count // self.size) if self.size else 0 for count in usable)
        return LevelHealth(self.priority, self.total, self.size, sum(usable), *worth)

    def hashed(self, *, reached: bool) -> _Share:
        """What a table is made of: who is healthy, or is ejected and may return."""
        if not self.healthy.endpoints:
            return self.degraded
        given: list[tuple[float, list[LiveEndpoint]]] = []
        for group in self.groups:
            members = [
                item
                for item in group.endpoints
                if not (item.down & ~(Down.EJECTED | self.blind) or (reached and item.unreached))
                and not item.degraded
            ]
            given.append((float(group.weight or 0), members))
        return _Share([item for _, members in given for item in members], given=given)

    def divide(self, balancing: Balancing, caller: Caller) -> None:
        """Keep calls from ``caller`` near."""
        usable = self._by_locality(self.healthy)
        zones = zones_of(balancing.zones, caller, usable, balancing.panic_threshold)
        if zones is None:
            return
        self.healthy.closed = self.degraded.closed = zones.closed
        self.healthy.near = zones.parts(usable, self.healthy.endpoints)
        if self.degraded.endpoints:
            self.degraded.near = zones.parts(self._by_locality(self.degraded), self.degraded.endpoints)

    def _by_locality(self, share: _Share) -> dict[Locality, list[LiveEndpoint]]:
        """Of each locality that has endpoints those in ``share``."""
        found: dict[Locality, list[LiveEndpoint]] = {}
        for group, members in zip(self.groups, share.by_group, strict=True):
            if group.endpoints:
                found.setdefault(group.locality, []).extend(members)
        return found


def _share(
    groups: Sequence[Group],
    factor: int,
    give_way: Callable[[], object],
    *,
    degraded: bool,
    reached: bool = False,
    blind: int = 0,
) -> _Share:
    found: list[LiveEndpoint] = []
    parts: list[tuple[float, list[LiveEndpoint]]] = []
    by_group: list[list[LiveEndpoint]] = []
    seen = ~blind
    for group in groups:
        give_way()
        usable = [item for item in group.endpoints if not item.down & seen and item.degraded is degraded]
        if reached:
            usable = [item for item in usable if not item.unreached]
        found += usable
        by_group.append(usable)
        if usable and group.weight:
            ratio = len(usable) / max(len(usable), _counted(group))
            parts.append((group.weight * min(1.0, factor / 100.0 * ratio), usable))
    return _Share(found, parts, by_group=by_group)


def _counted(group: Group) -> int:
    """How many of it its health is a share of."""
    return len(group.endpoints) - sum(1 for item in group.endpoints if item.down & Down.UNCOUNTED)


class _Pool:
    """Pickers over one share."""

    __slots__ = ("_ends", "_only", "_pickers", "_random", "endpoints")

    def __init__(
        self,
        share: _Share,
        balancing: Balancing,
        random: Callable[[], float],
        own: int,
        tables: Tables,
        edges: Mapping[LiveEndpoint, float] | None,
    ) -> None:
        self.endpoints = share.endpoints
        self._random = random
        parts = (share.parts if balancing.locality_weighted else None) or share.near
        self._ends = list(accumulate(weight for weight, _ in parts))
        self._pickers: list[Picker]
        if balancing.consistent:
            self._pickers = [_consistent(share, balancing, random, tables)]
        else:
            members = [members for _, members in parts] or [share.endpoints]
            self._pickers = [make_picker(balancing, part, random, own) for part in members]
            if edges:
                made = zip(self._pickers, members, strict=True)
                self._pickers = [Partial.over(picker, part, edges, random) for picker, part in made]
        self._only = self._pickers[0] if len(self._pickers) == 1 else None

    def picker(self) -> Picker:
        if self._only is not None:
            return self._only
        pickers = self._pickers
        index = bisect_right(self._ends, self._random() * self._ends[-1])
        return pickers[min(index, len(pickers) - 1)]


def _consistent(
    share: _Share, balancing: Balancing, random: Callable[[], float], tables: Tables
) -> Consistent:
    weighted = normalized(share.given) if balancing.locality_weighted else []
    weighted = weighted or normalized([(1.0, share.endpoints)])
    keys = [hash_key(endpoint, hostname=balancing.hash_hostname) for endpoint, _ in weighted]
    table = tables.get((balancing, *weighted, *keys), partial(make_table, balancing, weighted))
    members = [endpoint for endpoint, _ in weighted]
    return Consistent(table, members, random, all_of_them=share.panic)


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
        own: Stands for this caller among others, where the order of endpoints is drawn.
        tables: Those of the balances before it.
        grpc: By gRPC's rules (see :func:`grpc_balance`): True passes endpoints over that cannot be connected to.
        caller: This process as one; None: nobody knows where it is.
        edges: Endpoints that count only in part (`meshlib.core.narrowing`), where nothing is hashed.
        blind: Bits of :class:`meshlib.core.endpoint.Down` that do not count.

    Attributes:
        levels: The levels in numbers, in order of priority.
        reached: Of gRPC's: it has nobody who cannot be connected to.
    """

    __slots__ = ("_at", "_consistent", "_ends", "_only", "_pools", "_random", "levels", "reached")

    def __init__(
        self,
        groups: Sequence[Group],
        balancing: Balancing,
        factor: int,
        random: Callable[[], float],
        give_way: Callable[[], object] = bool,
        *,
        grpc: bool | None = None,
        own: int = 0,
        tables: Tables | None = None,
        caller: Caller | None = None,
        edges: Mapping[LiveEndpoint, float] | None = None,
        blind: int = 0,
    ) -> None:
        self._random = random
        self._consistent = balancing.consistent
        self._pools: list[_Pool | None] = []  # None: nobody is called
        loads: list[int] = []
        levels = _levels(groups, factor, give_way, grpc, blind)
        if not self._consistent:
            _localize(levels, balancing, caller)
        self.levels = tuple(level.told(factor) for level in levels)
        self.reached = bool(grpc)
        split = _loads(levels, self.levels, balancing.panic_threshold)
        if self._consistent:
            split = _loads_by_hash(levels, split, reached=bool(grpc))
        made: dict[int, _Pool | None] = {}
        for load, share in split:
            give_way()
            if load and share.endpoints:
                loads.append(load)
                made[id(share)] = (
                    None if share.closed else _Pool(share, balancing, random, own, tables or Tables(), edges)
                )
                self._pools.append(made[id(share)])
        self._at = {} if self._consistent or len(self._pools) == 1 else _pools_at(levels, made)
        self._ends = list(accumulate(loads))
        self._only = self._pools[0] if len(self._pools) == 1 else None

    @property
    def empty(self) -> bool:
        """Whether nobody may be called."""
        return not any(self._pools)

    def pick(self, context: PickContext) -> LiveEndpoint | None:
        """An endpoint, one not in ``context.tried`` while its level has one; None where nobody may be called."""
        pool = self._only or self._drawn(context)
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
        pool = self._only or self._drawn(context)
        if pool is None:
            return None
        endpoint = pool.picker().peek(context)
        if endpoint in context.tried:
            return self._untried(pool, context.tried) or endpoint
        return endpoint

    def _drawn(self, context: PickContext) -> _Pool | None:
        if not self._pools:
            return None
        if context.level is not None and context.level in self._at:
            return self._at[context.level]
        if self._consistent and context.hash is not None:
            return self._pools[bisect_right(self._ends, context.hash % self._ends[-1])]
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


def grpc_balance(
    groups: Sequence[Group],
    balancing: Balancing,
    random: Callable[[], float],
    own: int = 0,
    tables: Tables | None = None,
    caller: Caller | None = None,
    edges: Mapping[LiveEndpoint, float] | None = None,
    blind: int = 0,
) -> Balance:
    """The balance by gRPC's rules. The ring counts endpoint weights (LB-03), and is no larger than gRPC's own bound."""
    rules = replace(
        balancing,
        locality_weighted=True,
        panic_threshold=0.0,
        endpoint_weights=balancing.consistent,
        most_places=min(balancing.most_places, _GRPC_PLACES),
        least_places=min(balancing.least_places, _GRPC_PLACES),
    )
    make = partial(Balance, groups, rules, _WHOLE, random, own=own, tables=tables, caller=caller, edges=edges)
    balance = make(grpc=True, blind=blind)
    return make(grpc=False, blind=blind) if balance.empty else balance


def _localize(levels: Sequence[_Level], balancing: Balancing, caller: Caller | None) -> None:
    if caller is not None and levels and levels[0].groups[0].priority == 0:
        levels[0].divide(balancing, caller)
    if balancing.zones is not None and balancing.zones.fail_on_panic:
        for level in levels:
            level.everybody.closed = True


def _levels(
    groups: Sequence[Group], factor: int, give_way: Callable[[], object], grpc: bool | None, blind: int
) -> list[_Level]:
    by_priority: dict[int, list[Group]] = {}
    for group in groups:
        by_priority.setdefault(group.priority, []).append(group)
    return [_Level(by_priority[priority], factor, give_way, grpc, blind) for priority in sorted(by_priority)]


def _pools_at(
    levels: Sequence[_Level], made: Mapping[int, _Pool | None]
) -> dict[tuple[int, bool], _Pool | None]:
    """The pool of each level's usable endpoints, and of its degraded ones: the same where health does not count. ``made``: by the share's id."""
    found: dict[tuple[int, bool], _Pool | None] = {}
    for level in levels:
        for degraded, share in ((False, level.healthy), (True, level.degraded)):
            one = next((each for each in (level.everybody, share) if id(each) in made), None)
            if one is not None:
                found[level.priority, degraded] = made[id(one)]
    return found


def _loads(
    levels: Sequence[_Level], told: Sequence[LevelHealth], threshold: float
) -> list[tuple[int, _Share]]:
    first, second = level_loads(told, threshold)
    if not any(first) and not any(second):
        return _first_usable(levels)
    enough = sum(health.healthy + health.degraded for health in told) >= ALL
    loads: list[tuple[int, _Share]] = []
    for level, health, load, more in zip(levels, told, first, second, strict=True):
        if not enough and health.panics(threshold):
            loads.append((load + more, level.everybody))
        else:
            loads += [(load, level.healthy), (more, level.degraded)]
    return loads


def _loads_by_hash(
    levels: Sequence[_Level], split: Sequence[tuple[int, _Share]], *, reached: bool
) -> list[tuple[int, _Share]]:
    """The same loads in the order in which a hash looks at them: of the healthy of all levels, then of the degraded, which are the
    healthy's to serve where there are any.
    """
    first: list[tuple[int, _Share]] = []
    then: list[tuple[int, _Share]] = []
    for load, share in split:
        level = next(
            item
            for item in levels
            if share is item.healthy or share is item.degraded or share is item.everybody
        )
        made = share if share.panic else level.hashed(reached=reached)
        (then if share is level.degraded else first).append((load, made))
    return first + then


def _first_usable(levels: Sequence[_Level]) -> list[tuple[int, _Share]]:
    """Without panic: few usable endpoints whose health rounds to nothing are still the ones to call."""
    shares = [level.healthy for level in levels] + [level.degraded for level in levels]
    return next(([(100, share)] for share in shares if share.endpoints), [])


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
        "failing health checks": sum(_first_of(item, Down.CHECK) for item in endpoints),
        "ejected": sum(_first_of(item, Down.EJECTED) for item in endpoints),
        "behind TLS that cannot be had": sum(item.down == Down.TLS for item in endpoints),
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"has no usable endpoint among {len(endpoints)}" + (f" ({words})" if words else "")


def _first_of(endpoint: LiveEndpoint, reason: int) -> bool:
    """Whether that is why it cannot be called, and nothing that is said before it."""
    before = Down.CONTROL_PLANE if reason == Down.CHECK else Down.CONTROL_PLANE | Down.CHECK
    return bool(endpoint.down & reason) and not endpoint.down & before
