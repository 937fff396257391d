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

from meshlib.core.balance.consistent import Tables
from meshlib.core.endpoint import Down
from meshlib.core.levels import ALL, LevelHealth, level_loads
from meshlib.core.share import Pool, Share
from meshlib.core.spill import Others
from meshlib.core.zones import zones_of
from meshlib.model.endpoint import NOWHERE, Locality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.core.zones import Caller
    from meshlib.model.policy import Balancing, Elsewhere

__all__ = ["Balance", "Group", "grpc_balance"]

#: Picks that may fall on an endpoint already tried before one is looked for, and steps of that where some are omitted.
_REPICKS = 3
_MOST_STEPS = 64
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
        self.healthy = _share(groups, factor, give_way, degraded=False, reached=bool(grpc), blind=blind)
        # Of whom nothing bad is known: no more is to be looked at.
        whole = len(self.healthy.endpoints) == self.total
        self.size = self.total if whole else sum(_counted(group, blind) for group in groups)
        called = self.healthy.by_group
        if not whole:
            called = [[item for item in group.endpoints if not item.down & Down.TLS] for group in groups]
        given = [(float(group.weight or 0), part) for group, part in zip(groups, called, strict=True)]
        everybody = self.healthy.endpoints if whole else [item for part in called for item in part]
        self.everybody = Share(everybody, given=given, panic=True)
        none = whole or grpc is not None
        self.degraded = Share([]) if none else _share(groups, factor, give_way, degraded=True)

    @property
    def priority(self) -> int:
        return self.groups[0].priority

    def told(self, factor: int, *, weighted: bool = False) -> LevelHealth:
        usable = len(self.healthy.endpoints), len(self.degraded.endpoints)
        parts, whole = usable, self.size
        if weighted:
            parts = _weight(self.healthy.endpoints), _weight(self.degraded.endpoints)
            counted = (item for group in self.groups for item in group.endpoints)
            whole = _weight(item for item in counted if not item.down & Down.UNCOUNTED & ~self.blind)
        worth = (min(100, factor * part // whole) if whole else 0 for part in parts)
        return LevelHealth(self.priority, self.total, self.size, sum(usable), *worth)

    def hashed(self, *, reached: bool) -> Share:
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
        return Share([item for _, members in given for item in members], given=given)

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

    def _by_locality(self, share: Share) -> dict[Locality, list[LiveEndpoint]]:
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
) -> Share:
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
            ratio = len(usable) / max(len(usable), _counted(group, blind))
            parts.append((group.weight * min(1.0, factor / 100.0 * ratio), usable))
    return Share(found, parts, by_group=by_group)


def _counted(group: Group, blind: int) -> int:
    """How many of it its health is a share of."""
    uncounted = Down.UNCOUNTED & ~blind
    return len(group.endpoints) - sum(1 for item in group.endpoints if item.down & uncounted)


def _weight(endpoints: Iterable[LiveEndpoint]) -> int:
    return sum(item.weight for item in endpoints)


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
        weighted: A level's health is the usable share of its weights (Envoy ``weighted_priority_health``).

    Attributes:
        levels: The levels in numbers, in order of priority.
        reached: Of gRPC's: it has nobody who cannot be connected to.
    """

    __slots__ = (
        "_at",
        "_consistent",
        "_ends",
        "_only",
        "_others",
        "_pools",
        "_random",
        "levels",
        "reached",
    )

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
        weighted: bool = False,
    ) -> None:
        self._random = random
        self._consistent = balancing.consistent
        self._pools: list[Pool | None] = []  # None: nobody is called
        loads: list[int] = []
        levels = _levels(groups, factor, give_way, grpc, blind)
        if not self._consistent:
            _localize(levels, balancing, caller)
        self.levels = tuple(level.told(factor, weighted=weighted) for level in levels)
        self.reached = bool(grpc)
        split = _loads(levels, self.levels, balancing.panic_threshold)
        if self._consistent:
            split = _loads_by_hash(levels, split, reached=bool(grpc))
        made: dict[int, Pool | None] = {}
        kept = tables or Tables()

        def pool(share: Share) -> Pool | None:
            if id(share) not in made:
                usable = share.endpoints and not share.closed
                made[id(share)] = Pool(share, balancing, random, own, kept, edges) if usable else None
            return made[id(share)]

        for load, share in split:
            give_way()
            if load and share.endpoints:
                loads.append(load)
                self._pools.append(pool(share))
        self._at = {} if self._consistent or len(self._pools) == 1 else _pools_at(levels, made)
        self._others: Others[Share, Pool | None] | None = None
        if len(levels) > 1 and grpc is None:
            self._others = Others(self.levels, _shares(levels, self.levels, balancing), pool)
        self._ends = list(accumulate(loads))
        self._only = self._pools[0] if len(self._pools) == 1 else None

    @property
    def empty(self) -> bool:
        """Whether nobody may be called."""
        return not any(self._pools)

    def pick(self, context: PickContext) -> LiveEndpoint | None:
        """An endpoint, one not in ``context.tried`` while its level has one; None where nobody may be called."""
        tried = context.tried
        if tried and (elsewhere := getattr(context, "elsewhere", None)) is not None:
            return self._pick_elsewhere(context, elsewhere)
        pool = self._only or self._drawn(context)
        if pool is None:
            return None
        endpoint = pool.picker().pick(context)
        if not tried or endpoint not in tried:
            return endpoint
        for _ in range(_repicks(pool, tried)):
            other = pool.picker().pick(context)
            if other not in tried:
                return other
        return self._untried(pool, tried) or endpoint

    def _pick_elsewhere(self, context: PickContext, elsewhere: Elsewhere) -> LiveEndpoint | None:
        """Of another attempt, whose retry policy says more of where it may go than that it takes another endpoint."""
        pool, tried = None, context.tried
        if self._others is not None and elsewhere.every and context.level is None:
            priorities = [endpoint.priority for endpoint in tried]
            pool = self._others.pool(priorities, elsewhere.every, partial(self._number, context))
        pool = pool or self._only or self._drawn(context)
        if pool is None:
            return None
        endpoint = other = pool.picker().pick(context)
        repicks = _repicks(pool, tried)
        while other in tried or elsewhere.omits(other.endpoint.metadata):
            if not repicks:
                found = self._untried(pool, tried, elsewhere) or self._untried(pool, (), elsewhere)
                return found or self._untried(pool, tried) or endpoint
            repicks -= 1
            other = pool.picker().pick(context)
        return other

    def _number(self, context: PickContext, below: int) -> int:
        if self._consistent and context.hash is not None:
            return context.hash % below
        return int(self._random() * below)

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        """What ``pick`` would give, or might where chance decides; moves nothing on."""
        pool = self._only or self._drawn(context)
        if pool is None:
            return None
        endpoint = pool.picker().peek(context)
        if endpoint in context.tried:
            return self._untried(pool, context.tried) or endpoint
        return endpoint

    def _drawn(self, context: PickContext) -> Pool | None:
        if not self._pools:
            return None
        if context.level is not None and context.level in self._at:
            return self._at[context.level]
        # Loads are percent, or sizes where nobody is usable.
        return self._pools[bisect_right(self._ends, self._number(context, self._ends[-1]))]

    def _untried(
        self, pool: Pool, tried: tuple[LiveEndpoint, ...], elsewhere: Elsewhere | None = None
    ) -> LiveEndpoint | None:
        """One that was not tried, and that ``elsewhere`` does not omit, looked for from a random place; ends after as many steps as were
        tried, plus one, or after some where many are omitted.
        """
        endpoints = pool.endpoints
        start = int(self._random() * len(endpoints))
        for step in range(len(endpoints) if elsewhere is None else min(len(endpoints), _MOST_STEPS)):
            endpoint = endpoints[start + step - len(endpoints)]
            if endpoint not in tried and not (elsewhere and elsewhere.omits(endpoint.endpoint.metadata)):
                return endpoint
        return None


def _repicks(pool: Pool, tried: tuple[LiveEndpoint, ...]) -> int:
    """None where all may have been tried: turns that are passed over would be taken from whoever's they are, always the same ones'."""
    return _REPICKS if len(tried) < len(pool.endpoints) else 0


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
    levels: Sequence[_Level], made: Mapping[int, Pool | None]
) -> dict[tuple[int, bool], Pool | None]:
    """The pool of each level's usable endpoints, and of its degraded ones: the same where health does not count. ``made``: by the share's id."""
    found: dict[tuple[int, bool], Pool | None] = {}
    for level in levels:
        for degraded, share in ((False, level.healthy), (True, level.degraded)):
            one = next((each for each in (level.everybody, share) if id(each) in made), None)
            if one is not None:
                found[level.priority, degraded] = made[id(one)]
    return found


def _loads(
    levels: Sequence[_Level], told: Sequence[LevelHealth], threshold: float
) -> list[tuple[int, Share]]:
    first, second = level_loads(told, threshold)
    if not any(first) and not any(second):
        return _first_usable(levels)
    enough = sum(health.healthy + health.degraded for health in told) >= ALL
    loads: list[tuple[int, Share]] = []
    for level, health, load, more in zip(levels, told, first, second, strict=True):
        if not enough and health.panics(threshold):
            loads.append((load + more, level.everybody))
        else:
            loads += [(load, level.healthy), (more, level.degraded)]
    return loads


def _shares(
    levels: Sequence[_Level], told: Sequence[LevelHealth], balancing: Balancing
) -> list[tuple[Share, Share]]:
    """Who is called of each level, were the load on it: of its usable endpoints, and of its degraded ones."""
    enough = sum(health.healthy + health.degraded for health in told) >= ALL
    found: list[tuple[Share, Share]] = []
    for level, health in zip(levels, told, strict=True):
        if not enough and health.panics(balancing.panic_threshold):
            found.append((level.everybody, level.everybody))
        else:
            first = level.hashed(reached=False) if balancing.consistent else level.healthy
            found.append((first, level.degraded))
    return found


def _loads_by_hash(
    levels: Sequence[_Level], split: Sequence[tuple[int, Share]], *, reached: bool
) -> list[tuple[int, Share]]:
    """The same loads in the order in which a hash looks at them: of the healthy of all levels, then of the degraded, which are the
    healthy's to serve where there are any.
    """
    first: list[tuple[int, Share]] = []
    then: list[tuple[int, Share]] = []
    for load, share in split:
        level = next(
            item
            for item in levels
            if share is item.healthy or share is item.degraded or share is item.everybody
        )
        made = share if share.panic else level.hashed(reached=reached)
        (then if share is level.degraded else first).append((load, made))
    return first + then


def _first_usable(levels: Sequence[_Level]) -> list[tuple[int, Share]]:
    """Without panic: few usable endpoints whose health rounds to nothing are still the ones to call."""
    shares = [level.healthy for level in levels] + [level.degraded for level in levels]
    return next(([(100, share)] for share in shares if share.endpoints), [])
