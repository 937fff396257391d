"""What a graph holds of listeners and of route configurations: the newest that came, and what of it is in force; and parts of a snapshot."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from meshlib.model.listener import Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Absence, Fate, Part
from meshlib.xds.cache import Resources, State
from meshlib.xds.hosts import Named, clusters_of

__all__ = [
    "Config",
    "Key",
    "Root",
    "absence",
    "keys_of",
    "linked",
    "nothing",
    "retire",
    "tcp_clusters",
    "with_what_was",
]

# A route configuration's key: its name, or the listener and chain that hold it inline.
Key = str | tuple[str, int]


@dataclass(slots=True, eq=False)
class Config:
    """A route configuration: the newest, and what of it is in force; and parts of a snapshot."""

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

    @property
    def replaced(self) -> bool:
        """Whether another version than the newest is in force, and whole."""
        return self.current is not None and not self.partial and self.made_of[0] is not self.latest


def absence(cache: Resources, short: str, name: str, called: str) -> Absence | None:
    """Why a resource will not come; None if it is there or may come. ``called``: what it is in words."""
    failed = cache.failed(short, name)
    if not failed:
        return None
    entry = cache.get(short, name)
    if entry is None or entry.absent:
        fate = Fate.ABSENT
    else:
        fate = Fate.UNUSABLE if entry.state is State.NACKED else Fate.UNANSWERED
    return Absence(fate, f"{called} {failed}")


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
    if listener is None:
        return frozenset()
    routes = (chain.tcp.routes for chain in listener.chains if chain.tcp is not None)
    hosts = (host for config in routes if config is not None for host in config.virtual_hosts)
    return frozenset[str]().union(*map(clusters_of, hosts))


def linked(listener: Listener, routes: list[RouteConfiguration | None]) -> Listener:
    """The listener with the routes of its chains, in their order; None where a chain has none yet."""
    chains = tuple(
        replace(chain, http=replace(chain.http, routes=config)) if chain.http is not None else chain
        for chain, config in zip(listener.chains, routes, strict=True)
    )
    return replace(listener, chains=chains)


def with_what_was(made: Part, before: Part) -> Part:
    """`made` with the values of `before` that are the same; `before` itself where all are."""
    if made is before:
        return before
    same: dict[str, Any] = {}
    for name in ("targets", "clusters"):
        if _same_mapping(getattr(made, name), getattr(before, name)):
            same[name] = getattr(before, name)
    if len(made.sidecar) == len(before.sidecar) and all(map(operator.is_, made.sidecar, before.sidecar)):
        same["sidecar"] = before.sidecar
    for name in ("absent", "lacking", "awaited", "identified"):
        if getattr(made, name) == getattr(before, name):
            same[name] = getattr(before, name)
    if len(same) == 7 and made.listed == before.listed:
        return before
    return replace(made, **same)


def _same_mapping(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one.values(), map(other.get, one)))
