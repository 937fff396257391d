"""References: listener → route configuration → cluster → load assignment, and from all of them a part of the snapshot.

Theory. What is wanted is a set of roots: target listeners by name, and, in the sidecar view, every listener that the
control plane made for an Envoy. From the roots the graph finds what else is to be asked for, layer by layer, and it
lets a change come into force only where all that it names is there (make before break, CA-02 to CA-08):

    layer            comes into force when                                    until then
    ---------------  -------------------------------------------------------  ------------------------------------
    cluster          its endpoints are there (`links`)                        as it was before
    virtual host     each cluster that its routes name is ready               as it was before, host by host (`hosts`)
    listener         each route configuration it names is in force; for a     as it was before
                     target: its own host in it

"Ready" includes "known not to come": what a server deleted, refused to send or did not send in time holds nobody up;
calls to such a cluster get the status that the route has for it. What something in force names stays subscribed.

In the sidecar view clusters come by wildcard; one that a route names and the wildcard has not brought has as long to
come as a resource asked for by name. A change costs what hangs on it: indexes lead from a load assignment to its
clusters, from a cluster to the route configurations that name it, from those to their listeners.

Not thread-safe: it belongs to the thread of the stream. The parts it gives are immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from meshlib.model.listener import FilterChain, Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Part
from meshlib.xds.cache import Cache
from meshlib.xds.hosts import Named, best_host, clusters_of, merge, named
from meshlib.xds.links import Links
from meshlib.xds.values import Interest

__all__ = ["Graph"]

# A route configuration's key: its name, or the listener and chain that hold it inline.
_Key = str | tuple[str, int]


@dataclass(slots=True, eq=False)
class _Config:
    """A route configuration: the newest, and what of it is in force."""

    key: _Key
    latest: RouteConfiguration | None = None
    hosts: tuple[Named, ...] = ()
    current: RouteConfiguration | None = None
    whole: bool = False  # whether a version was ever in force as it came
    clusters: frozenset[str] = frozenset()  # what is named by the newest and by what is in force
    in_force: frozenset[str] = frozenset()  # by what is in force alone
    users: set[_Root] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Root:
    """A listener: a target under the authority of its calls, or one of the sidecar view (authority "")."""

    name: str
    authority: str = ""
    target: bool = False
    latest: Listener | None = None
    current: Listener | None = None
    made_of: tuple[object, ...] = ()
    keys: frozenset[_Key] = frozenset()
    current_keys: frozenset[_Key] = frozenset()
    routed: frozenset[str] = frozenset()  # clusters that the routes of `current` name
    clusters: frozenset[str] = frozenset()  # those, and what chains of TCP name
    failed: str = ""


class Graph:
    """See the module's header. `view`: "auto", "sidecar" or "target". `part` changes only in `update`, `want`, `forget`."""

    def __init__(self, cache: Cache, view: str = "auto", source: str = "xds") -> None:
        self._cache = cache
        self._sidecar = view != "target"
        self._by_name = view != "sidecar"
        self._links = Links(cache, all_of_them=self._sidecar)
        self._configs: dict[_Key, _Config] = {}
        self._targets: dict[str, _Root] = {}
        self._listeners: dict[str, _Root] = {}
        self._stale_clusters = False
        self._stale_roots = False
        self._generation = 0  # grows when other listeners or route configurations are wanted
        self._asked: dict[str, Interest] = {}
        self._asked_at = (-1, -1)
        self.part = Part(source)
        self.revision = 0

    # --- what is wanted

    def want(self, name: str, authority: str = "") -> bool:
        """A target is wanted by name; `authority` is what its virtual hosts are held against (default: the name)."""
        if not self._by_name or name in self._targets:
            return False
        root = self._targets[name] = _Root(name, authority or name, target=True)
        self._generation += 1
        self._read_root(root)
        self._publish()
        return True

    def forget(self, name: str) -> bool:
        """A target is wanted no more."""
        root = self._targets.pop(name, None)
        if root is None:
            return False
        self._generation += 1
        self._drop_root(root)
        self._publish()
        return True

    def interests(self) -> dict[str, Interest]:
        """What to ask for, by type, as things stand; the same objects as before where nothing changed."""
        if self._asked_at == (self._generation, self._links.generation):
            return self._asked
        clusters = Interest(names=self._links.wanted)
        if self._sidecar:
            clusters = Interest(wildcard=True, expected=frozenset(self._links.missing))
        self._asked = {
            "listener": Interest(self._sidecar, frozenset(self._targets)),
            "route": Interest(names=frozenset(key for key in self._configs if isinstance(key, str))),
            "cluster": clusters,
            "endpoint": Interest(names=self._links.endpoints),
        }
        self._asked_at = (self._generation, self._links.generation)
        return self._asked

    # --- what has changed

    def update(self, changed: Mapping[str, set[str]]) -> None:
        """Takes in that these names (by type) have another value or fate in the cache."""
        links = self._links
        clusters = set(changed.get("cluster", ()))
        for name in changed.get("endpoint", ()):
            clusters |= links.of_endpoints(name)
        configs: set[_Key] = set()
        for name in clusters:
            value_changed, ready_changed = links.refresh(name)
            self._stale_clusters |= value_changed
            if ready_changed:
                configs.update(key for key in links.users(name) if key in self._configs)
        for name in sorted(changed.get("listener", ())):  # so that their order is not left to chance
            self._read_listener(name)
        for name in changed.get("route", ()):
            config = self._configs.get(name)
            if config is not None:
                self._read_config(config, self._cache.value("route", name))
                configs.add(name)
        for key in configs:
            self._settle(key)
        self._publish()

    # --- listeners

    def _read_listener(self, name: str) -> None:
        target = self._targets.get(name)
        if target is not None:
            self._read_root(target)
        if not self._sidecar:
            return
        value = self._cache.value("listener", name)
        root = self._listeners.get(name)
        if isinstance(value, Listener) and not value.api:
            if root is None:
                root = self._listeners[name] = _Root(name)
            self._read_root(root)
        elif root is not None:
            del self._listeners[name]
            self._drop_root(root)

    def _read_root(self, root: _Root) -> None:
        """Takes the newest listener, and follows what it names."""
        value = self._cache.value("listener", root.name)
        root.latest = value if isinstance(value, Listener) else None
        root.failed = self._cache.failed("listener", root.name)
        if root.target and root.latest is not None and not root.latest.api:
            root.failed, root.latest = "is a listener for a sidecar: it has no api_listener", None
        if root.latest is None:  # deleted, refused or of no use: no target any more
            _retire(root)
        self._follow(root)
        for key in root.keys:
            config = self._configs.get(key)
            if config is None:
                continue  # what the first of them brought into force no longer names the others
            if isinstance(key, tuple):
                self._read_config(config, self._inline(root, key))
            elif config.latest is None:
                self._read_config(config, self._cache.value("route", key))
            self._settle(key)
        self._link_root(root)

    def _inline(self, root: _Root, key: tuple[str, int]) -> object:
        if root.latest is None or key[1] >= len(root.latest.chains):
            return None  # of an older version, which is in force yet
        chain = root.latest.chains[key[1]]
        return chain.http.routes if chain.http is not None else None

    def _drop_root(self, root: _Root) -> None:
        root.latest = None
        _retire(root)
        self._follow(root)
        self._stale_roots = True

    def _follow(self, root: _Root) -> None:
        """Keeps the indexes: a root uses the configurations of its newest version and of the one in force."""
        keys = _keys(root.latest) | root.current_keys
        for key in keys - root.keys:
            self._generation += 1
            self._configs.setdefault(key, _Config(key)).users.add(root)
        for key in root.keys - keys:
            self._release_config(key, root)
        # What is in force holds its own clusters: the configuration that it came from may have moved on (CA-03).
        clusters = _tcp(root.latest) | _tcp(root.current) | root.routed
        for name in clusters - root.clusters:
            self._links.use(name, root)
            self._stale_clusters = True
        for name in root.clusters - clusters:
            self._links.release(name, root)
            self._stale_clusters = True
        root.keys, root.clusters = keys, clusters

    def _release_config(self, key: _Key, user: _Root) -> None:
        config = self._configs[key]
        config.users.discard(user)
        if not config.users:
            config.latest, config.hosts, config.current = None, (), None
            self._name_clusters(config)
            del self._configs[key]
            self._generation += 1

    # --- route configurations

    def _read_config(self, config: _Config, value: object) -> None:
        latest = value if isinstance(value, RouteConfiguration) else None
        if latest is None or latest is config.latest:
            return  # a route configuration that is gone stays as it was (SW-14)
        config.hosts = named(latest, config.hosts)
        config.latest = latest
        self._name_clusters(config)

    def _name_clusters(self, config: _Config) -> None:
        names = frozenset[str]().union(*(item.clusters for item in config.hosts))
        config.in_force = frozenset()
        if config.current is not None and config.current is config.latest:
            config.in_force = names
        elif config.current is not None:
            known = {id(item.host): item.clusters for item in config.hosts}
            hosts = config.current.virtual_hosts
            config.in_force = frozenset[str]().union(
                *(known.get(id(host)) or clusters_of(host) for host in hosts)
            )
            names |= config.in_force
        for name in names - config.clusters:
            self._links.use(name, config.key)
            self._stale_clusters = True
        for name in config.clusters - names:
            self._links.release(name, config.key)
            self._stale_clusters = True
        config.clusters = names

    def _settle(self, key: _Key) -> None:
        """Takes into force what of a configuration can be, and links the listeners that name it."""
        config = self._configs.get(key)
        if config is None:
            return
        if config.latest is not None:
            merged, whole = merge(
                config.latest, config.hosts, config.current, whole=config.whole, ready=self._links.ready
            )
            if merged != config.current or (whole and merged is not config.current):
                config.current = merged
                self._name_clusters(config)
            config.whole |= whole
        for root in list(config.users):
            self._link_root(root)

    # --- listeners, linked

    def _link_root(self, root: _Root) -> None:
        """Takes the newest listener into force if all that it names is; else it stays as it was."""
        if root.latest is None:
            self._stale_roots = True
            return
        root.failed = ""
        found: list[RouteConfiguration | None] = []
        for index, chain in enumerate(root.latest.chains):
            routes = self._routes_of(root, chain, index)
            if chain.http is not None and routes is None:
                self._stale_roots |= bool(root.failed)
                return
            found.append(routes)
        made_of = (root.latest, *found)
        if len(made_of) == len(root.made_of) and all(map(_is, made_of, root.made_of)):
            return
        root.made_of = made_of
        root.current = _linked(root.latest, found)
        root.current_keys = _keys(root.latest)
        used = (self._configs[key].in_force for key in root.current_keys if key in self._configs)
        root.routed = frozenset[str]().union(*used)
        self._stale_roots = True
        self._follow(root)

    def _routes_of(self, root: _Root, chain: FilterChain, index: int) -> RouteConfiguration | None:
        """The routes that a chain can have now; None while it must wait."""
        if chain.http is None:
            return None
        key: _Key = chain.http.route_name or (root.name, index)
        config = self._configs[key]
        if config.latest is None and isinstance(key, str):
            failed = self._cache.failed("route", key)
            if failed and root.target:
                root.failed = f"route configuration {key!r} {failed}"
            elif failed:
                return _nothing(key)  # as in Envoy: the listener is there, and nothing is found
            return None
        if config.current is None:
            return None
        if root.target:
            return config.current if _serves(config, root.authority) else None
        # One that replaces another must be whole: its hosts were served before.
        replaces = root.current is not None and key not in root.current_keys
        return config.current if config.whole or not replaces else None

    # --- the part

    def _publish(self) -> None:
        """Makes a new part if anything of it changed. What did not change is the same object as before."""
        before = self.part
        targets, absent, sidecar, clusters = before.targets, before.absent, before.sidecar, before.clusters
        if self._stale_roots:
            targets = {name: root.current for name, root in self._targets.items() if root.current is not None}
            absent = frozenset(
                name for name, root in self._targets.items() if root.failed and root.current is None
            )
            made = (root.current for root in self._listeners.values())
            sidecar = tuple(listener for listener in made if listener is not None)
            targets = before.targets if _same_mapping(targets, before.targets) else targets
            absent = before.absent if absent == before.absent else absent
            same = len(sidecar) == len(before.sidecar) and all(map(_is, sidecar, before.sidecar))
            sidecar = before.sidecar if same else sidecar
        if self._stale_clusters:
            clusters = dict(self._links.clusters)
            clusters = before.clusters if _same_mapping(clusters, before.clusters) else clusters
        self._stale_roots = self._stale_clusters = False
        made_part = (targets, absent, sidecar, clusters)
        if all(map(_is, made_part, (before.targets, before.absent, before.sidecar, before.clusters))):
            return
        self.part = Part(before.source, before.services, sidecar, targets, absent, clusters)
        self.revision += 1

    # --- in words

    def waiting(self) -> tuple[str, ...]:
        """Targets that are wanted, and neither there nor known not to come."""
        return tuple(name for name, root in self._targets.items() if root.current is None and not root.failed)

    def pending(self, name: str) -> str:
        """What a target still lacks, or why it will not come, in words; "" if it can be called."""
        root = self._targets.get(name)
        if root is None:
            return f"listener {name!r} was not asked for"
        if root.failed and root.current is None:
            return root.failed if root.failed.startswith("route ") else f"listener {name!r} {root.failed}"
        if root.latest is None:
            return f"listener {name!r} has not come yet"
        if root.current is None:
            lacks = [
                words for key in sorted(root.keys, key=str) for words in self._lacks(key, root.authority)
            ]
            return "; ".join(lacks[:10]) or f"listener {name!r} is not complete yet"
        return self._unreachable(root)

    def _lacks(self, key: _Key, authority: str) -> list[str]:
        config = self._configs[key]
        if config.latest is None:
            return [f"route configuration {key!r} has not come yet"]
        found = best_host(config.latest, authority)
        names = clusters_of(found[0]) if found is not None else config.clusters
        return [self._links.lacks(name) for name in sorted(names) if not self._links.ready(name)]

    def _unreachable(self, root: _Root) -> str:
        """A target in force of whose clusters none is there: a call to it can only fail."""
        http = root.current.http if root.current is not None else None
        if http is None or http.routes is None:
            return ""
        found = best_host(http.routes, root.authority)
        names = clusters_of(found[0]) if found is not None else frozenset[str]()
        if not names or any(name in self._links.clusters for name in names):
            return ""
        return "; ".join(self._links.lacks(name) for name in sorted(names)[:10])


@lru_cache(maxsize=1024)
def _nothing(name: str) -> RouteConfiguration:
    """A configuration in which no host is found; the same object each time, so that nothing seems to change."""
    return RouteConfiguration(name)


def _serves(config: _Config, authority: str) -> bool:
    """Whether what is in force has a virtual host for `authority` by the same domain as the newest version.

    Where it has none at all, nothing is found, but only once everything is known.
    """
    if config.latest is None or config.current is None:
        return False
    newest = best_host(config.latest, authority)
    if newest is None:
        return config.whole
    found = best_host(config.current, authority)
    return found is not None and found[1] == newest[1]


def _retire(root: _Root) -> None:
    """Nothing of it is in force any more."""
    root.current, root.made_of = None, ()
    root.current_keys = root.routed = frozenset()


def _keys(listener: Listener | None) -> frozenset[_Key]:
    if listener is None:
        return frozenset()
    return frozenset(
        chain.http.route_name or (listener.name, index)
        for index, chain in enumerate(listener.chains)
        if chain.http is not None
    )


def _tcp(listener: Listener | None) -> frozenset[str]:
    return (
        frozenset(chain.tcp_cluster for chain in listener.chains if chain.tcp_cluster)
        if listener
        else frozenset()
    )


def _linked(listener: Listener, routes: list[RouteConfiguration | None]) -> Listener:
    chains = tuple(
        replace(chain, http=replace(chain.http, routes=config)) if chain.http is not None else chain
        for chain, config in zip(listener.chains, routes, strict=True)
    )
    return replace(listener, chains=chains)


def _is(one: object, other: object) -> bool:
    return one is other


def _same_mapping(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return len(one) == len(other) and all(other.get(key) is value for key, value in one.items())
