"""Filters whose configuration comes by itself (ECDS), and the listeners that wait for it.

    state of a configuration      a filter that may decide who may pass         what replaces a listener
    ----------------------------  --------------------------------------------  -----------------------------
    asked for                     covers its calls (403); where it says so      waits: as it was before
                                  its default is in force
    here, of an allowed type      is what it turned out to be                   comes into force
    here, of another type         covers its calls                              comes into force
    known not to come             its default is in force; without one it       comes into force
                                  covers its calls

A filter that cannot turn out to be one of those is not asked for: it is not run here, whatever it is.

Not thread-safe: it belongs to a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.listener import Extension, HttpFilter, Listener
from meshlib.xds.named import NamedByRoots

if TYPE_CHECKING:
    from meshlib.xds.cache import Resources
    from meshlib.xds.roots import Root

__all__ = ["Extensions"]

#: In the place of one that is known not to come.
_FAILED = ""


class Extensions:
    """Which configurations are named, and by whom."""

    __slots__ = ("_cache", "named")

    def __init__(self, cache: Resources) -> None:
        self._cache = cache
        self.named = NamedByRoots()

    def follow(self, root: Root) -> bool:
        """Takes in what a root names now, by its newest version and by the one in force; whether others are wanted than before."""
        return self.named.follow(root, _named(root.latest) | _named(root.current))

    def found(self, listener: Listener) -> tuple[object, ...]:
        """What there is of each that the listener names, in a fixed order; None for one that may come."""
        return tuple(map(self._state, sorted(_named(listener))))

    def _state(self, name: str) -> object | None:
        value = self._cache.value("extension", name)
        if isinstance(value, Extension):
            return value
        return _FAILED if self._cache.failed("extension", name) else None

    def applied(self, listener: Listener) -> Listener:
        """The listener with its filters as they turned out to be."""
        if not _named(listener):
            return listener
        chains = tuple(
            replace(chain, http=replace(chain.http, filters=tuple(map(self._settled, chain.http.filters))))
            if chain.http is not None
            else chain
            for chain in listener.chains
        )
        return replace(listener, chains=chains)

    def _settled(self, item: HttpFilter) -> HttpFilter:
        if item.discovered is None:
            return item
        state = self._state(item.name)
        if isinstance(state, Extension):
            return replace(item, kind=state.kind) if state.type in item.discovered.allowed else item
        default = item.discovered.default
        return replace(item, kind=default) if state == _FAILED and default is not None else item


def _named(listener: Listener | None) -> frozenset[str]:
    return frozenset(_names(listener)) if listener is not None else frozenset()


def _names(listener: Listener) -> Iterator[str]:
    for chain in listener.chains:
        if chain.http is not None:
            yield from (item.name for item in chain.http.filters if item.discovered is not None)
