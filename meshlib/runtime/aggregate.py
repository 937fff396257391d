"""An aggregate that is in use: no endpoints, and the clusters that its calls go to.

What it decides is core's (`meshlib.core.aggregate`). Its leaves are live clusters like others, and may be called by other ways, too:
their counters, limits, ejections and connections are one each. Retries are counted here, since which leaf one goes to is not known
when it is decided: an aggregate's own `max_retries` and budget hold, as in Envoy.

``_lock`` guards the counters of retries. What is bound and how the load falls are swapped whole.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.aggregate import first_reached, split
from meshlib.core.limits import may_retry
from meshlib.core.locality import Balance
from meshlib.core.refusals import describe, without_answer
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.endpoint import Assignment
from meshlib.model.status import ClusterStatus
from meshlib.runtime.live_pick import LiveRetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.aggregate import Split
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import RetryBudget
    from meshlib.runtime.live import LiveCluster
    from meshlib.runtime.live_high import LiveHigh
    from meshlib.runtime.live_pick import LivePick

__all__ = ["LiveAggregate"]


class _Bound(NamedTuple):
    """``leaves``: those that are there; ``absent``: the others, each with why, in words."""

    leaves: tuple[LiveCluster, ...]
    absent: tuple[str, ...]


class _Standing(NamedTuple):
    """The balances that a split was made of."""

    balances: list[Balance]
    split: Split | None


class _LeafContext(PickContext):
    """The same pick, at one level of a leaf."""

    __slots__ = ("level",)

    def __init__(self, context: PickContext, level: tuple[int, bool] | None) -> None:
        super().__init__(context.attempt, context.tried, context.hash, context.head, grpc=context.grpc)
        self.override = context.override
        if hasattr(context, "labels"):
            self.labels = context.labels
        if hasattr(context, "elsewhere"):
            self.elsewhere = context.elsewhere
        self.level = level


class LiveAggregate:
    """One aggregate (:class:`meshlib.core.upstream.Upstream`). Thread-safe; no method blocks.

    ``update``, ``bind`` and ``retire`` belong to the one writer of the configuration.

    Args:
        cluster: What the configuration says.
        random: Floats in [0, 1); thread-safe.
        clock: Monotonic seconds, for what comes from outside a call.

    Attributes:
        given: What the configuration says; ``cluster``: the same as calls see it: without an assignment while none of its leaves has
            any, with the hash policies of its first leaf that hashes, and the headers of the first that is told by some whom to call.
        limiter: None.
        consistent: One of its leaves goes by a request's hash; ``labelled``: by its labels.
        retries: In flight. ``retried``, ``overflows``: over all time. Read them, no more.
    """

    __slots__ = (
        "__weakref__",
        "_bound",
        "_clock",
        "_high",
        "_lock",
        "_random",
        "_standing",
        "cluster",
        "consistent",
        "given",
        "labelled",
        "limiter",
        "overflows",
        "retried",
        "retries",
    )

    def __init__(self, cluster: Cluster, random: Callable[[], float], clock: Callable[[], float]) -> None:
        self.given = self.cluster = cluster
        self.limiter = None
        self.consistent = self.labelled = False
        self.retries = 0
        self.retried = 0
        self.overflows = 0
        self._random = random
        self._clock = clock
        self._lock = threading.Lock()
        self._bound = _Bound((), ())
        self._standing: _Standing | None = None
        self._high: HighAggregate | None = None

    # --- a call's side --------------------------------------------------------------------------------------------

    def pick(self, context: PickContext, now: float) -> LivePick | Refusal:
        """An endpoint of the leaf that is chosen now, or why there is none. What the leaf refuses is refused, as in Envoy and gRPC."""
        leaf, there, _ = self._chosen(context, now)
        return self._nobody() if leaf is None else leaf.pick(there, now)

    @property
    def high(self) -> HighAggregate:
        """It, as calls of priority HIGH see it."""
        high = self._high
        if high is None:
            with self._lock:
                high = self._high = self._high or HighAggregate(self)
        return high

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        leaf, there, _ = self._chosen(context, self._clock())
        return None if leaf is None else leaf.peek(there)

    def chosen(self, context: PickContext) -> tuple[LiveCluster | None, PickContext, str]:
        leaf, there, load = self._chosen(context, self._clock())
        if leaf is None:
            return None, there, self._nobody().detail
        name = leaf.cluster.name
        if load is None and context.override is not None and not context.grpc:
            return leaf, there, f"leaf {name}: it has {context.override.words()}"
        if load is None:
            return leaf, there, f"leaf {name}: the first that has an endpoint that can be called"
        shares = ", ".join(
            f"{each.cluster.name} {percent} %"
            for each, percent in zip(self._bound.leaves, load.percent, strict=False)
        )
        return leaf, there, f"leaf {name}, by how usable each is: {shares}"

    def _chosen(
        self, context: PickContext, now: float
    ) -> tuple[LiveCluster | None, PickContext, Split | None]:
        leaves = self._bound.leaves
        if context.override is not None:
            for may in (True, False):  # who may not be called now has its session still
                for leaf in leaves:
                    if context.override.among(leaf._roster.live, leaf.cluster, grpc=context.grpc, may=may):
                        return leaf, context, None
        balances = [_balance(leaf, context, now) for leaf in leaves]
        if context.grpc:
            number = first_reached(balances)
            return (None if number is None else leaves[number]), context, None
        standing = self._standing
        if standing is None or standing.balances != balances:
            threshold = self.given.balancing.panic_threshold
            made = split([balance.levels for balance in balances], threshold)
            standing = self._standing = _Standing(balances, made)
        if standing.split is None:
            return None, context, None
        place = standing.split.draw(self._random())
        return leaves[place.leaf], _LeafContext(context, (place.level, place.degraded)), standing.split

    def _nobody(self) -> Refusal:
        bound = self._bound
        has = [
            f"{leaf.cluster.name!r} {describe(leaf.endpoints)}{without_answer(leaf.cluster)}"
            for leaf in bound.leaves
        ]
        words = "; ".join((*has, *bound.absent)[:10]) or self.given.unassigned or "it names no other cluster"
        return Refusal(
            RefusalKind.NO_ENDPOINT, f"aggregate cluster {self.given.name!r} has nobody to call: {words}"
        )

    def begin_retry(self, budget: RetryBudget | None, *, limited: bool = True) -> LiveRetry | None:
        with self._lock:
            if limited and not may_retry(self.given.limits, budget, self.retries, self.active):
                self.overflows += 1
                return None
            self.retries += 1
            self.retried += 1
        return LiveRetry(self)

    def reached(self) -> bool:
        return any(leaf.reached() for leaf in self._bound.leaves)

    # --- the writer's side ----------------------------------------------------------------------------------------

    def update(self, cluster: Cluster) -> None:
        """Its next configuration; ``bind`` follows."""
        self.given = cluster
        self._standing = None

    def bind(self, find: Callable[[str], LiveCluster | None], lacking: Mapping[str, str]) -> None:
        """Its leaves, as they are there now. ``lacking``: why others are not, as in a part; of those one may be kept for calls under
        way.
        """
        found = {name: None if name in lacking else find(name) for name in self.given.leaves}
        leaves = tuple(leaf for leaf in found.values() if leaf is not None)
        absent = tuple(
            f"{name!r} {lacking.get(name, 'is not there') or 'has not come yet'}"
            for name, leaf in found.items()
            if leaf is None
        )
        given = self.given
        awaited = (
            all(leaf.cluster.assignment is None for leaf in leaves)
            if leaves
            else any(lacking.get(name) == "" for name in found)
        )
        theirs = [leaf.cluster.balancing for leaf in leaves]
        self.cluster = replace(
            given,
            assignment=None if awaited else Assignment(given.name),
            unassigned=given.unassigned or ("" if leaves else "; ".join(absent[:10])),
            balancing=replace(
                given.balancing,
                hash_policy=next((each.hash_policy for each in theirs if each.consistent), ()),
                override_headers=next(
                    (each.override_headers for each in theirs if each.override_headers), ()
                ),
            ),
        )
        self.consistent = any(leaf.consistent for leaf in leaves)
        self.labelled = any(leaf.labelled for leaf in leaves)
        self._bound = _Bound(leaves, absent)
        self._standing = None

    def retire(self) -> None:
        """It left the configuration: whoever still holds it is refused; calls in flight run on."""
        self._bound = _Bound((), ())
        self._standing = None

    # --- status ---------------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """Calls in flight at its leaves, by whatever way they came."""
        return sum(leaf.active for leaf in self._bound.leaves)

    def status(self, now: float) -> ClusterStatus:  # noqa: ARG002 - as of a live cluster
        leaves = tuple(leaf.cluster.name for leaf in self._bound.leaves)
        return ClusterStatus(
            active=self.active, retries=self.retried, overflows=self.overflows, leaves=leaves
        )


class HighAggregate:
    """An aggregate as calls of priority HIGH see it: its leaves as these see them, and retries counted by themselves. The aggregate's lock
    guards these.
    """

    __slots__ = ("__weakref__", "_lock", "_of", "retries")

    limiter = None

    def __init__(self, of: LiveAggregate) -> None:
        self._of = of
        self._lock = of._lock
        self.retries = 0

    @property
    def high(self) -> HighAggregate:
        return self

    @property
    def cluster(self) -> Cluster:
        return self._of.cluster

    @property
    def consistent(self) -> bool:
        return self._of.consistent

    @property
    def labelled(self) -> bool:
        return self._of.labelled

    def pick(self, context: PickContext, now: float) -> LivePick | Refusal:
        leaf, there, _ = self._of._chosen(context, now)
        return self._of._nobody() if leaf is None else leaf.high.pick(there, now)

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        return self._of.peek(context)

    def chosen(self, context: PickContext) -> tuple[LiveHigh | None, PickContext, str]:
        leaf, there, words = self._of.chosen(context)
        return (None if leaf is None else leaf.high), there, words

    def begin_retry(self, budget: RetryBudget | None, *, limited: bool = True) -> LiveRetry | None:
        of = self._of
        with of._lock:
            active = sum(leaf.high.active for leaf in of._bound.leaves)
            if limited and not may_retry(of.given.high_limits, budget, self.retries, active):
                of.overflows += 1
                return None
            self.retries += 1
            of.retried += 1
        return LiveRetry(self)

    def reached(self) -> bool:
        return self._of.reached()


def _balance(leaf: LiveCluster, context: PickContext, now: float) -> Balance:
    """The balance of a leaf as it stands now. One whose endpoints are all ejected, or fail their checks, is not picked from, so that who
    may return is looked for here.
    """
    with leaf._lock:
        if leaf.health is not None:
            leaf.health.look_on(grpc=context.grpc)
        if leaf._ejections is not None and now >= leaf._ejections.next_sweep:
            leaf._sweep(now)
        found = leaf._balances.of(context)
        balance, told = found if isinstance(found, Balance) else found.whole, leaf._to_tell()
    for tell in told:
        tell()
    return balance
