"""References: listener → route configuration → cluster → load assignment, and from all of them a part of the snapshot.

Theory. What is wanted is a set of roots: target listeners by name, and, in the sidecar view, every listener that the
control plane made for an Envoy. From the roots the graph finds what else is to be asked for, layer by layer. What is new
is in force as soon as it is there, whole or not: calls to what it lacks wait, or fail where that is known to be absent.
What replaces something comes into force only where all that it names is there (make before break, CA-02 to CA-08):

    layer            replaces what is in force when                           until then
    ---------------  -------------------------------------------------------  ------------------------------------
    cluster          its endpoints and its secrets are there (`links`)        as it was before
    virtual host     each cluster that its routes name is ready               as it was before, host by host (`hosts`)
    listener         each route configuration it names is there; another      as it was before
                     one than it had is complete (for a target: for its
                     host); each cluster that its chains of TCP name is ready,
                     and each filter's configuration (`extensions`)

"Ready" includes "known not to come": what a server deleted, refused to send or did not send in time holds nobody up.
What something in force names stays subscribed, and it is kept though the server deleted it as long as only versions name it that
newer ones, which wait, replace; then with the endpoints that it had, which are not asked for any more. What was deleted and is
named by the newest has ``UPDATE`` seconds for its replacement to be named, since a server sends the parts of an update one by one; then
calls fail as in Envoy. An aggregate names clusters, too (`aggregates`).

In the sidecar view clusters come by wildcard; one that a route names and the wildcard has not brought is absent as far as calls are
concerned, and has as long to come as a resource asked for by name before an update does without it. A change costs what hangs on
it: indexes lead from a load assignment to its clusters, from a cluster to the route configurations that name it, from those to their listeners.

Not thread-safe: it belongs to the thread of the stream. The parts it gives are immutable.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace

from meshlib.model.listener import FilterChain, Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import ANY_CLUSTER, Absence, Fate, Part
from meshlib.xds.aggregates import Parent
from meshlib.xds.cache import Resources
from meshlib.xds.extensions import Extensions
from meshlib.xds.filter_chains import FilterChains
from meshlib.xds.hosts import best_host, clusters_of, merge, mirrored, named, read
from meshlib.xds.links import Links
from meshlib.xds.roots import (
    Config,
    Key,
    Root,
    absence,
    keys_of,
    linked,
    nothing,
    retire,
    tcp_clusters,
    with_what_was,
)
from meshlib.xds.values import Interest

__all__ = ["Graph"]

#: Seconds in which the parts of one update arrive: the responses of a server that changes all types at once.
UPDATE = 1.0


class Graph:
    """See the module's header. `view`: "auto", "sidecar" or "target". `part` changes only in `update`, `want`, `forget`."""

    def __init__(
        self, cache: Resources, view: str = "auto", source: str = "xds", give_way: Callable[[], object] = bool
    ) -> None:
        self._cache = cache
        self._sidecar = view != "target"
        self._by_name = view != "sidecar"
        self._links = Links(cache, all_of_them=self._sidecar, superseded=self._superseded, give_way=give_way)
        self._extensions = Extensions(cache)
        self._chains = FilterChains(cache)
        self._configs: dict[Key, Config] = {}
        self._targets: dict[str, Root] = {}
        self._listeners: dict[str, Root] = {}
        self._stale_clusters = True
        self._stale_roots = False
        self._listed = False  # whether the clusters of a wildcard are here
        self._generation = 0  # grows when other listeners or route configurations are wanted
        self._leave: dict[str, float] = {}  # when clusters that were deleted and are named are gone
        self._asked: dict[str, Interest] = {}
        self._asked_at = (-1, -1)
        self.part = Part(source)
        self.revision = 0
        self._publish()

    # --- what is wanted

    def want(self, name: str, authority: str = "") -> bool:
        """A target is wanted by name; `authority` is what its virtual hosts are held against (default: the name)."""
        if not self._by_name or name in self._targets:
            return False
        root = self._targets[name] = Root(name, authority or name, target=True)
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

    @property
    def targets(self) -> dict[str, str]:
        """The targets that are wanted and there, each with its authority."""
        return {name: root.authority for name, root in self._targets.items() if root.latest is not None}

    def interests(self) -> dict[str, Interest]:
        """What to ask for, by type, as things stand; the same objects as before where nothing changed."""
        if self._asked_at == (self._generation, self._links.generation):
            return self._asked
        clusters = Interest(names=self._links.wanted)
        if self._sidecar:
            clusters = Interest(wildcard=True, expected=self._links.expected)
        self._asked = {
            "listener": Interest(self._sidecar, frozenset(self._targets)),
            "route": Interest(names=frozenset(key for key in self._configs if isinstance(key, str))),
            "cluster": clusters,
            "endpoint": Interest(names=self._links.endpoints),
            "extension": Interest(names=self._extensions.named.names),
            "filter_chain": Interest(names=self._chains.named.names),
            "secret": Interest(names=self._links.secrets),
        }
        self._asked_at = (self._generation, self._links.generation)
        return self._asked

    # --- what has changed

    def update(self, changed: Mapping[str, set[str]], now: float = 0.0) -> None:
        """Takes in that these names (by type) have another value or fate in the cache; `now`: monotonic seconds."""
        links = self._links
        configs: set[Key] = set()
        roots: set[Root] = set()
        for name in links.touched(changed):
            value_changed, ready_changed = links.refresh(name)
            self._stale_clusters |= value_changed
            if ready_changed:
                users = links.users(name)
                configs.update(key for key in users if key in self._configs)
                roots.update(user for user in users if isinstance(user, Root))
        for name in sorted(changed.get("listener", ())):  # so that their order is not left to chance
            self._read_listener(name)
        for root in self._chains.named.users(changed.get("filter_chain", ())):
            self._read_root(root)
        for name in changed.get("route", ()):
            config = self._configs.get(name)
            if config is not None:
                self._read_config(config, self._cache.value("route", name))
                configs.add(name)
        roots |= self._extensions.named.users(changed.get("extension", ()))
        for key in configs:
            self._settle(key)
        for root in roots:
            self._link_root(root)
        self._look_again()
        leave = self._leave
        self._leave = {name: leave.get(name, now + UPDATE) for name in links.leaving}
        self._publish()

    def tick(self, now: float) -> bool:
        """Lets go of what was deleted and not replaced. True if anything was."""
        due = [name for name, at in self._leave.items() if at <= now]
        for name in due:
            del self._leave[name]
            self._links.leaving.discard(name)
            self._links.refresh(name)
            self._stale_clusters = True
        if due:
            self._publish()
        return bool(due)

    def next_timer(self) -> float | None:
        """When `tick` has something to do."""
        return min(self._leave.values(), default=None)

    def _look_again(self) -> None:
        """Clusters of which something is known by other names' changes."""
        links = self._links
        for name in links.deleted:
            self._stale_clusters |= links.refresh(name)[0]
        if self._sidecar and not self._listed and "cluster" in self._cache.listed:
            self._listed = self._stale_clusters = True
            for name in (*links.missing, *links.above(links.missing)):
                links.refresh(name)

    def _superseded(self, name: str) -> bool:
        """Whether the cluster is named only by what is in force and by nothing that is to replace it (CA-03)."""
        return not any(self._names(user, name) for user in self._links.users(name))

    def _names(self, user: object, name: str) -> bool:
        if isinstance(user, Parent):
            return self._links.leads(user, name)
        if isinstance(user, Root):
            return name in tcp_clusters(user.latest)
        config = self._configs[user]  # type: ignore[index]
        newest = any(config.key in keys_of(root.latest) for root in config.users)
        return newest and any(name in item.clusters for item in config.hosts)

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
                root = self._listeners[name] = Root(name)
            self._read_root(root)
        elif root is not None:
            del self._listeners[name]
            self._drop_root(root)

    def _read_root(self, root: Root) -> None:
        """Takes the newest listener, and follows what it names."""
        value = self._cache.value("listener", root.name)
        root.latest = self._chains.joined(root, value) if isinstance(value, Listener) else None
        root.absence = absence(self._cache, "listener", root.name, f"listener {root.name!r}")
        if root.target and root.latest is not None and not root.latest.api:
            words = f"listener {root.name!r} is a listener for a sidecar: it has no api_listener"
            root.absence, root.latest = Absence(Fate.ABSENT, words), None
        if root.latest is None:  # deleted, refused or of no use: no target any more
            retire(root)
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

    def _inline(self, root: Root, key: tuple[str, int]) -> object:
        if root.latest is None or key[1] >= len(root.latest.chains):
            return None  # of an older version, which is in force yet
        chain = root.latest.chains[key[1]]
        return chain.http.routes if chain.http is not None else None

    def _drop_root(self, root: Root) -> None:
        root.latest = None
        retire(root)
        self._follow(root)
        self._stale_roots = True

    def _follow(self, root: Root) -> None:
        """Keeps the indexes: a root uses the configurations of its newest version and of the one in force."""
        keys = keys_of(root.latest) | root.current_keys
        for key in keys - root.keys:
            self._generation += 1
            self._configs.setdefault(key, Config(key)).users.add(root)
        for key in root.keys - keys:
            self._release_config(key, root)
        # What is in force holds its own clusters: the configuration that it came from may have moved on (CA-03).
        clusters = tcp_clusters(root.latest) | tcp_clusters(root.current) | root.routed
        for name in clusters - root.clusters:
            self._links.use(name, root)
            self._stale_clusters = True
        for name in root.clusters - clusters:
            self._links.release(name, root)
            self._stale_clusters = True
        root.keys, root.clusters = keys, clusters
        self._generation += self._extensions.follow(root) + self._chains.follow(root)

    def _release_config(self, key: Key, user: Root) -> None:
        config = self._configs[key]
        config.users.discard(user)
        if not config.users:
            config.latest, config.hosts, config.current = None, (), None
            self._name_clusters(config)
            del self._configs[key]
            self._generation += 1

    # --- route configurations

    def _read_config(self, config: Config, value: object) -> None:
        latest = value if isinstance(value, RouteConfiguration) else None
        if latest is config.latest:
            return
        if latest is None:
            # One that is gone stays as it was (SW-14), unless the server's errors count (ER-04).
            if isinstance(config.key, str) and self._cache.failed("route", config.key):
                config.latest, config.hosts, config.current, config.whole = None, (), None, False
                self._name_clusters(config)
            return
        config.hosts = named(latest, config.hosts, self._links.give_way)
        config.latest = latest
        self._name_clusters(config)

    def _name_clusters(self, config: Config) -> None:
        names = frozenset[str]().union(*(item.clusters for item in config.hosts))
        config.in_force = frozenset()
        if config.current is not None and config.current is config.latest:
            config.in_force = names
        elif config.current is not None:
            known = {id(item.host): item for item in config.hosts}
            served = [known.get(id(host)) or read(host) for host in config.current.virtual_hosts]
            config.in_force = frozenset[str]().union(*[item.clusters for item in served])
            names |= config.in_force | mirrored(config.current, served)
        if config.latest is not None:
            names |= mirrored(config.latest, config.hosts)
        for name in names - config.clusters:
            self._links.use(name, config.key)
            self._stale_clusters = True
        for name in config.clusters - names:
            self._links.release(name, config.key)
            self._stale_clusters = True
        config.clusters = names

    def _settle(self, key: Key) -> None:
        """Takes into force what of a configuration can be, and links the listeners that name it."""
        config = self._configs.get(key)
        if config is None:
            return
        if config.latest is not None:
            merged, whole = merge(config.latest, config.hosts, config.current, ready=self._links.ready)
            if merged != config.current or (whole and merged is not config.current):
                config.current = merged
                self._name_clusters(config)
            config.whole |= whole
        for root in list(config.users):
            self._link_root(root)

    # --- listeners, linked

    def _link_root(self, root: Root) -> None:
        """Takes the newest listener into force: the first at once, another if all that it names is there."""
        if root.latest is None:
            self._stale_roots = True
            return
        root.absence = self._routes_absent(root)
        if root.absence is not None:
            if any(self._configs[key].current is None for key in root.current_keys):
                retire(root)
                self._follow(root)
            self._stale_roots = True
            return
        extensions = self._extensions.found(root.latest)
        if root.replaced and not (
            None not in extensions and all(map(self._links.ready, tcp_clusters(root.latest)))
        ):
            return
        found: list[RouteConfiguration | None] = []
        partial = False
        for index, chain in enumerate(root.latest.chains):
            routes = self._routes_of(root, chain, index)
            if chain.http is not None and routes is None:
                if root.current is not None and not root.partial:
                    return
                partial = True
            found.append(routes)
        made_of = (root.latest, *found, *extensions)
        if len(made_of) == len(root.made_of) and all(map(operator.is_, made_of, root.made_of)):
            return
        root.made_of, root.partial = made_of, partial
        root.current = self._extensions.applied(linked(root.latest, found))
        root.current_keys = keys_of(root.latest)
        used = (self._configs[key].in_force for key in root.current_keys if key in self._configs)
        root.routed = frozenset[str]().union(*used)
        self._stale_roots = True
        self._follow(root)

    def _routes_of(self, root: Root, chain: FilterChain, index: int) -> RouteConfiguration | None:
        """The routes that a chain can have now; None while they have not come, or must not replace others yet."""
        if chain.http is None:
            return None
        key: Key = chain.http.route_name or (root.name, index)
        config = self._configs[key]
        if config.current is None:
            # As in Envoy, where the routes do not exist the listener is there, and nothing is found.
            return nothing(key) if isinstance(key, str) and self._cache.failed("route", key) else None
        replaces = root.current is not None and not root.partial and key not in root.current_keys
        if not replaces or config.whole or (root.target and self._serves(config, root.authority)):
            return config.current
        return None

    def _routes_absent(self, root: Root) -> Absence | None:
        """Why the routes of a target will not come. Its listener is there, so that its host is of the mesh."""
        if not root.target:
            return None
        for key in sorted(keys_of(root.latest), key=str):
            if isinstance(key, str) and self._configs[key].latest is None:
                found = absence(self._cache, "route", key, f"route configuration {key!r}")
                if found is not None:
                    return Absence(Fate.UNUSABLE, found.why)
        return None

    def _serves(self, config: Config, authority: str) -> bool:
        """Whether the newest version has all that `authority` needs."""
        found = None if config.latest is None else best_host(config.latest, authority)
        return found is not None and all(map(self._links.ready, clusters_of(found[0])))

    # --- the part

    def _publish(self) -> None:
        """Makes a new part if anything of it changed. What did not change is the same object as before."""
        before = made = self.part
        listed = self._sidecar and "listener" in self._cache.listed
        if self._stale_roots or listed != before.listed:
            current = (root.current for root in self._listeners.values())
            made = replace(
                made,
                targets={
                    name: root.current for name, root in self._targets.items() if root.current is not None
                },
                absent={
                    name: root.absence
                    for name, root in self._targets.items()
                    if root.absence is not None and root.current is None
                },
                sidecar=tuple(listener for listener in current if listener is not None),
                listed=listed,
            )
        if self._stale_clusters:
            made = self._links.told(made)
            if self._sidecar and not self._listed:
                made = replace(made, lacking={**made.lacking, ANY_CLUSTER: ""})
        self._stale_roots = self._stale_clusters = False
        made = with_what_was(made, before)
        if made is not before:
            self.part = made
            self.revision += 1

    # --- in words

    def waiting(self) -> tuple[str, ...]:
        """Targets that are wanted, and neither wholly there nor known not to come."""
        return tuple(
            name
            for name, root in self._targets.items()
            if root.absence is None and (root.current is None or root.partial or self._awaited(root))
        )

    def lacking(self) -> tuple[str, ...]:
        """The clusters that routes name and that are known not to be there, in words."""
        return tuple(f"cluster {name} ({why})" for name, why in self._links.lacking.items() if why)

    def pending(self, name: str) -> str:
        """What a target still lacks, or why it will not come, in words; "" if it can be called."""
        root = self._targets.get(name)
        if root is None:
            return f"listener {name!r} was not asked for"
        if root.absence is not None and root.current is None:
            return root.absence.why
        if root.latest is None:
            return f"listener {name!r} has not come yet"
        if root.current is None or root.partial or self._awaited(root):
            lacks = [
                words for key in sorted(root.keys, key=str) for words in self._lacks(key, root.authority)
            ]
            return "; ".join(lacks[:10]) or f"listener {name!r} is not complete yet"
        return self._unreachable(root)

    def _lacks(self, key: Key, authority: str) -> list[str]:
        config = self._configs[key]
        if config.latest is None:
            return [f"route configuration {key!r} has not come yet"]
        found = best_host(config.latest, authority)
        names = clusters_of(found[0]) if found is not None else config.clusters
        return [self._links.lacks(name) for name in sorted(names) if not self._links.ready(name)]

    def _own(self, root: Root) -> frozenset[str]:
        """The clusters that calls to a target in force may be sent to."""
        http = root.current.http if root.current is not None else None
        if http is None or http.routes is None:
            return frozenset()
        found = best_host(http.routes, root.authority)
        return clusters_of(found[0]) if found is not None else frozenset()

    def _awaited(self, root: Root) -> bool:
        """Whether a target in force lacks a cluster that may come."""
        return any(self._links.lacking.get(name) == "" for name in self._own(root))

    def _unreachable(self, root: Root) -> str:
        """A target in force of whose clusters none is there: a call to it can only fail."""
        names = self._own(root)
        if not names or any(name in self._links.clusters for name in names):
            return ""
        return "; ".join(self._links.lacks(name) for name in sorted(names)[:10])
