"""Filter chains that come by themselves (FCDS), and the listeners that wait for them.

A listener's matcher leads to filter chains by their names (`decode.matcher`); those that are not in it are asked for.

    state of a chain          a call that the matcher leads to it     what replaces a listener
    ------------------------  --------------------------------------  ---------------------------
    asked for                 waits, as for routes                    waits: as it was before
    here                      is its                                  comes into force
    known not to come         nobody's: an Envoy closes it            comes into force
    removed                   nobody's, as in Envoy                   comes into force

A chain that comes makes another version of its listeners: it comes into force when the routes and clusters that it names are there.

Not thread-safe: it belongs to a graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.listener import FilterChain, HttpManager, Listener
from meshlib.xds.named import NamedByRoots

if TYPE_CHECKING:
    from meshlib.xds.cache import Resources
    from meshlib.xds.roots import Root

__all__ = ["FilterChains"]


#: Of a chain that may come: one whose routes have not.
_AWAITED = HttpManager()


class FilterChains:
    """Which chains are named, and by whom."""

    __slots__ = ("_cache", "_joined", "named")

    def __init__(self, cache: Resources) -> None:
        self._cache = cache
        self.named = NamedByRoots()
        # What a root's listener was made of last, and what came of it: the same object while nothing changes.
        self._joined: dict[Root, tuple[Listener, tuple[object, ...], Listener]] = {}

    def follow(self, root: Root) -> bool:
        """Takes in what a root names now, by its newest version and by the one in force; whether others are wanted than before."""
        if root.latest is None:
            self._joined.pop(root, None)
        return self.named.follow(root, _named(root.latest) | _named(root.current))

    def joined(self, root: Root, listener: Listener) -> Listener:
        """``listener``, which is the root's newest, with the chains that are here."""
        if not listener.discovered:
            return listener
        found = tuple(map(self._state, listener.discovered))
        known = self._joined.get(root)
        if (
            known is not None
            and known[0] is listener
            and all(a is b for a, b in zip(known[1], found, strict=True))
        ):
            return known[2]
        more = [
            each if isinstance(each, FilterChain) else FilterChain(name, http=each)
            for name, each in zip(listener.discovered, found, strict=True)
            if each is not None
        ]
        made = replace(listener, chains=(*listener.chains, *more))
        self._joined[root] = listener, found, made
        return made

    def _state(self, name: str) -> FilterChain | HttpManager | None:
        """The chain; `_AWAITED` while it may come; None: it will not."""
        value = self._cache.value("filter_chain", name)
        if isinstance(value, FilterChain):
            return value
        return None if self._cache.failed("filter_chain", name) else _AWAITED


def _named(listener: Listener | None) -> frozenset[str]:
    return frozenset(listener.discovered) if listener is not None else frozenset()
