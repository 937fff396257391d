"""Aggregate clusters of a graph: what each leads to, and who is to be looked at again (CD-04).

Theory. An aggregate names clusters, of which some may be aggregates. Its *reach* is all that it leads to; its *leaves* are those of
that which are no aggregates, depth first, each where it is met first. A circle ends where it began, and names nothing new. Deeper than
``DEEPEST`` nothing is followed, and the aggregate is of no use, as in gRPC.

    what is reached                                  the aggregate                          ready
    -----------------------------------------------  -------------------------------------  -----
    one may come, or waits for endpoints or secrets  as before; else calls wait             no
    all there, or known not to come                  in force; those not there are skipped  yes
    no leaf, or too deep                             in force, and calls fail               yes

In the sidecar view what the list of all clusters does not have is not there as far as calls are concerned, so that an aggregate that is
new does not wait for it; one that replaces another does, as long as it may come.

Who names an aggregate keeps all of its reach wanted. An aggregate that only others name holds nothing by itself, so that two that name
each other do not keep each other.

Not thread-safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.model.cluster import Cluster, Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DEEPEST", "MOST", "Aggregates", "Parent", "Reach", "reach"]

#: Aggregates in aggregates, the outermost included: as in gRPC, where a cluster at that depth is one too deep.
DEEPEST = 15
#: Clusters that one aggregate may lead to; a call looks at each leaf.
MOST = 1000


class Parent(NamedTuple):
    """An aggregate as one who names clusters."""

    name: str


class Reach(NamedTuple):
    """``names``: all that an aggregate leads to, without itself; ``leaves``: those of them that are no aggregates, or not there;
    ``trouble``: why it is of no use, in words.
    """

    names: tuple[str, ...]
    leaves: tuple[str, ...]
    trouble: str = ""


def reach(cluster: Cluster, find: Callable[[str], Cluster | None]) -> Reach:
    """What ``cluster`` leads to. ``find``: another, as it was sent last; None: it is not there."""
    seen = {cluster.name: None}
    leaves: list[str] = []
    # Names that are still to be followed at each depth, the next one last.
    stack = [list(reversed(cluster.children))]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        name = stack[-1].pop()
        if len(stack) > DEEPEST:
            words = f"its aggregates are nested deeper than {DEEPEST}"
            return Reach(tuple(seen)[1:], (), words)
        if name in seen:
            continue
        if len(seen) > MOST:
            return Reach(tuple(seen)[1:], (), f"it leads to more than {MOST} clusters")
        seen[name] = None
        found = find(name)
        if found is not None and found.discovery is Discovery.AGGREGATE:
            stack.append(list(reversed(found.children)))
        else:
            leaves.append(name)
    words = "" if leaves else "it leads to no cluster that is no aggregate"
    return Reach(tuple(seen)[1:], tuple(leaves), words)


class Aggregates:
    """The indexes: which aggregates lead to a cluster, and what each holds."""

    __slots__ = ("_above", "_held", "_reach")

    def __init__(self) -> None:
        self._above: dict[str, set[str]] = {}
        self._reach: dict[str, Reach] = {}
        self._held: dict[str, frozenset[str]] = {}

    def above(self, names: Iterable[str]) -> set[str]:
        """The aggregates that lead to any of ``names``."""
        if not self._above:
            return set()
        return set().union(*(self._above.get(name, ()) for name in names))

    def known(self, name: str) -> bool:
        return name in self._reach

    def reach(self, name: str) -> Reach | None:
        """Of its newest version."""
        return self._reach.get(name)

    def held(self, name: str) -> frozenset[str]:
        """What it keeps wanted."""
        return self._held.get(name, frozenset())

    def leads(self, name: str, to: str) -> bool:
        """Whether the newest version of an aggregate does."""
        found = self._reach.get(name)
        return found is not None and to in found.names

    def follow(self, name: str, made: Reach | None) -> None:
        """``made``: the reach of its newest version; None: it is no aggregate, or not there."""
        before = self._reach.pop(name, None)
        old, new = (frozenset(each.names) if each is not None else frozenset() for each in (before, made))
        if made is not None:
            self._reach[name] = made
        for gone in old - new:
            self._above[gone].discard(name)
            if not self._above[gone]:
                del self._above[gone]
        for come in new - old:
            self._above.setdefault(come, set()).add(name)

    def hold(self, name: str, names: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """It keeps ``names`` wanted: which it did not before, and which it does no more."""
        before = self._held.pop(name, frozenset())
        if names:
            self._held[name] = names
        return names - before, before - names
