"""What a graph holds of listeners and of route configurations: the newest that came, and what of it is in force."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from meshlib.model.listener import Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Absence
from meshlib.xds.hosts import Named

__all__ = ["Config", "Key", "Root", "keys_of", "linked", "nothing", "retire", "tcp_clusters"]

# A route configuration's key: its name, or the listener and chain that hold it inline.
Key = str | tuple[str, int]


@dataclass(slots=True, eq=False)
class Config:
    """A route configuration: the newest, and what of it is in force."""

    key: Key
    latest: RouteConfiguration | None = None
    hosts: tuple[Named, ...] = ()
    current: RouteConfiguration | None = None
    whole: bool = False  # whether there ever was a version of which all was ready
    clusters: frozenset[str] = frozenset()  # what is named by the newest and by what is in force
    in_force: frozenset[str] = frozenset()  # by what is in force alone
    users: set[Root] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Root:
    """A listener: a target under the authority of its calls, or one of the sidecar view (authority "")."""

    name: str
    authority: str = ""
    target: bool = False
    latest: Listener | None = None
    current: Listener | None = None
    made_of: tuple[object, ...] = ()
    keys: frozenset[Key] = frozenset()
    current_keys: frozenset[Key] = frozenset()
    routed: frozenset[str] = frozenset()  # clusters that the routes of `current` name
    clusters: frozenset[str] = frozenset()  # those, and what chains of TCP name
    partial: bool = False  # whether `current` is the first, and a chain of it has no routes yet
    absence: Absence | None = None  # why there is none, or no newer one


@lru_cache(maxsize=1024)
def nothing(name: str) -> RouteConfiguration:
    """A configuration in which no host is found; the same object each time, so that nothing seems to change."""
    return RouteConfiguration(name)


def retire(root: Root) -> None:
    """Nothing of it is in force any more."""
    root.current, root.made_of, root.partial = None, (), False
    root.current_keys = root.routed = frozenset()


def keys_of(listener: Listener | None) -> frozenset[Key]:
    """The route configurations of its chains."""
    if listener is None:
        return frozenset()
    return frozenset(
        chain.http.route_name or (listener.name, index)
        for index, chain in enumerate(listener.chains)
        if chain.http is not None
    )


def tcp_clusters(listener: Listener | None) -> frozenset[str]:
    """The clusters that its chains of TCP name."""
    chains = listener.chains if listener is not None else ()
    return frozenset(chain.tcp_cluster for chain in chains if chain.tcp_cluster)


def linked(listener: Listener, routes: list[RouteConfiguration | None]) -> Listener:
    """The listener with the routes of its chains, in their order; None where a chain has none yet."""
    chains = tuple(
        replace(chain, http=replace(chain.http, routes=config)) if chain.http is not None else chain
        for chain, config in zip(listener.chains, routes, strict=True)
    )
    return replace(listener, chains=chains)
