"""What one choice of servers comes to: for each authority one of its servers, and a graph over what those have said.

World 0 asks every authority's first server, world 1 the second of those that fell back, and so on. A graph sees one world only,
so that what it puts together for a target is never made of what two servers of one authority have said.

Not thread-safe: it belongs to the thread of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from meshlib.model.snapshot import Part
from meshlib.xds.cache import Cache, Entry, State
from meshlib.xds.directory import Directory
from meshlib.xds.graph import Graph
from meshlib.xds.names import TOP

__all__ = ["Space", "World"]


class Space:
    """The caches of a world's servers as the one in which a graph looks names up. ``names``: full names of the types, by
    short name. ``levels``: which of an authority's servers is this world's; the first where nothing is said.
    """

    def __init__(
        self, directory: Directory, caches: Callable[[int], Cache], names: Mapping[str, str]
    ) -> None:
        self._directory = directory
        self._cache_of = caches
        self._names = names
        self.levels: dict[str, int] = {}

    @property
    def several(self) -> bool:
        """Whether there is more than one server."""
        return len(self._directory.servers) > 1

    def number(self, authority: str) -> int:
        """The server that is asked for what an authority has."""
        servers = self._directory.of[authority]
        return servers[min(self.levels.get(authority, 0), len(servers) - 1)]

    def place(self, short: str, name: str) -> int:
        """The server that is asked for it; -1: nobody is."""
        if self._directory.plain(short, name):
            return self.number(TOP)
        if self._directory.misfit(short, name, self._names[short]):
            return -1
        authority = self._directory.authority(short, name)
        return -1 if authority is None else self.number(authority)

    def cache(self, short: str, name: str) -> Cache | None:
        """Where it is."""
        if self._directory.plain(short, name):
            return self._cache_of(self.number(TOP))
        number = self.place(short, name)
        return None if number < 0 else self._cache_of(number)

    # --- what a graph asks

    complete = False

    @property
    def listed(self) -> set[str]:
        return self._cache_of(self.number(TOP)).listed

    @listed.setter
    def listed(self, found: set[str]) -> None:
        self._cache_of(self.number(TOP)).listed = found

    def get(self, short: str, name: str) -> Entry | None:
        cache = self.cache(short, name)
        if cache is not None:
            return cache.get(short, name)
        return Entry(name, State.NACKED, problems=(self._directory.misfit(short, name, self._names[short]),))

    def value(self, short: str, name: str) -> object | None:
        cache = self.cache(short, name)
        return None if cache is None else cache.value(short, name)

    def failed(self, short: str, name: str) -> str:
        cache = self.cache(short, name)
        if cache is not None:
            return cache.failed(short, name)
        return f"cannot be asked for: it {self._directory.misfit(short, name, self._names[short])}"

    def missing(self, short: str, name: str) -> str:
        cache = self.cache(short, name)
        return self.failed(short, name) if cache is None else cache.missing(short, name)

    def entries(self, short: str) -> Iterator[Entry]:
        for number, cache in self._caches():
            yield from (each for each in cache.entries(short) if self.place(short, each.name) == number)

    def names(self, short: str) -> Iterator[str]:
        return (each.name for each in self.entries(short) if each.value is not None)

    # --- what an earlier process had

    def known(self, short: str, raw: bytes) -> Entry | None:
        return next((found for _, cache in self._caches() if (found := cache.known(short, raw))), None)

    def hold(
        self, short: str, name: str, value: object, *, raw: bytes, ignored: tuple[tuple[str, str], ...] = ()
    ) -> None:
        cache = self.cache(short, name)
        if cache is not None:
            cache.hold(short, name, value, raw=raw, ignored=ignored)

    def _caches(self) -> Iterator[tuple[int, Cache]]:
        for number in dict.fromkeys(map(self.number, self._directory.of)):
            yield number, self._cache_of(number)


class World:
    """See the module's header. ``make`` gives an empty graph over a cache."""

    def __init__(self, cache: Cache | Space, view: str, make: Callable[[Cache | Space], Graph]) -> None:
        self.cache = cache
        self._view = view
        self._make = make
        self.graph = make(cache)
        self.whole = False  # whether all that there is for an Envoy was ever here

    @property
    def levels(self) -> dict[str, int]:
        """By authority; empty where one server has it all."""
        return self.cache.levels if isinstance(self.cache, Space) else {}

    def rebuild(self, targets: Mapping[str, str], now: float, types: Iterable[str]) -> None:
        """Puts it together anew: other servers are asked than before."""
        self.graph = self._make(self.cache)
        self.whole = False
        for name, authority in targets.items():
            self.graph.want(name, authority)
        self.graph.update({short: set(self.cache.names(short)) for short in types}, now)

    def update(self, number: int, changed: Mapping[str, set[str]], now: float) -> None:
        """Takes in what a server has changed; what this world asks of others is none of its business."""
        if isinstance(self.cache, Space) and self.cache.several:
            place = self.cache.place
            changed = {
                short: {name for name in names if place(short, name) == number}
                for short, names in changed.items()
            }
        self.graph.update(changed, now)
        if isinstance(self.cache, Space) and not self.whole and self._view != "target":
            self.whole = self.cache.listed >= {"listener", "cluster"} and _nothing_lacks(self.graph.part)


def _nothing_lacks(part: Part) -> bool:
    """Whether all routes and all clusters that the listeners made for an Envoy name are here, or known not to come."""
    chains = (chain for listener in part.sidecar for chain in listener.chains)
    routed = all(chain.http is None or chain.http.routes is not None for chain in chains)
    return routed and "" not in part.lacking.values()
