"""A file in Envoy's shape: lists of listeners, clusters, routes, endpoints and secrets, or a whole bootstrap.

The same decoders and the same graph as for a control plane; only that here everything is known at once, so that a name
which nothing bears is a mistake in the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.cluster import Cluster, NameServers
from meshlib.model.endpoint import NOWHERE, Locality
from meshlib.model.listener import Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Part
from meshlib.model.status import Ignored
from meshlib.xds import decode, schema
from meshlib.xds.cache import Cache
from meshlib.xds.decode.dns import name_servers
from meshlib.xds.decode.fields import Kind, rule
from meshlib.xds.decode.report import Report
from meshlib.xds.graph import Graph
from meshlib.xds.hosts import clusters_of, mirrored
from meshlib.xds.roots import tcp_clusters

__all__ = ["EnvoyFile", "read"]

# Keys of a file → short name of the type in their lists.
_LISTS = {
    "listeners": "listener",
    "clusters": "cluster",
    "routes": "route",
    "endpoints": "endpoint",
    "secrets": "secret",
}
_STATIC_KEYS = {"listeners": "listener", "clusters": "cluster", "secrets": "secret"}
_BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
_CLUSTER = "envoy.config.cluster.v3.Cluster"
#: Fields of a bootstrap that a cluster has, too.
_RESOLVERS = frozenset({"use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config"})
# A file that Envoy watches (`path_config_source`) is a DiscoveryResponse: what stands in one beside the resources.
_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"


@dataclass(frozen=True, slots=True)
class EnvoyFile:
    """What a file says. With `problems`, each with its place, `part` has only what is right and is not to be used."""

    part: Part
    problems: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()


def read(data: object, source: str = "file") -> EnvoyFile:
    """The part of the snapshot that `data` (as a YAML or JSON reader gives it) describes. Never raises.

    Socket listeners become listeners of the sidecar view, api_listeners become targets under their names. Of a bootstrap `node` says where
    the process is, and `cluster_manager` who calls beside it.
    """
    reader = _Reader()
    if isinstance(data, Mapping):
        reader.top(data)
    else:
        reader.problems.append(f"must be a mapping with {', '.join(_LISTS)}, not {type(data).__name__}")
    reader.check_names()
    graph = Graph(reader.cache, "auto", source)
    for entry in list(reader.cache.entries("listener")):
        if isinstance(entry.value, Listener) and entry.value.api:
            graph.want(entry.name)
    graph.update({short: set(reader.cache.names(short)) for short in _LISTS.values()})
    part = replace(graph.part, locality=reader.locality, local_cluster=reader.local_cluster)
    return EnvoyFile(part, tuple(reader.problems), tuple(reader.ignored))


class _Reader:
    def __init__(self) -> None:
        self.cache = Cache((*_LISTS.values(), "extension", "filter_chain"), complete=True)
        self.problems: list[str] = []
        self.ignored: list[Ignored] = []
        self.locality = NOWHERE
        self.local_cluster = ""
        self._places: dict[tuple[str, str], str] = {}
        self._name_servers: NameServers | None = None

    def top(self, data: Mapping[Any, Any]) -> None:
        bootstrap = schema.spelled(_BOOTSTRAP)
        self._name_servers = self._resolvers(data)
        beside = schema.spelled(_RESPONSE) if "resources" in data else {}
        for key, value in data.items():
            field = bootstrap.get(key) if isinstance(key, str) else None
            if key in _LISTS:
                self._list(_LISTS[key], value, str(key))
            elif key == "resources":
                self._resources(value, str(key))
            elif field == "static_resources":
                self._static(value, str(key))
            elif field == "node":
                self._node(value, str(key))
            elif field == "cluster_manager":
                self._manager(value, str(key))
            elif field in _RESOLVERS:
                pass  # it has been read
            elif field is not None:
                if value is not None and rule(_BOOTSTRAP, field).kind is not Kind.VOID:
                    self._ignore(str(key), type(value).__name__)
            elif key not in beside:
                self._unknown(str(key), (*_LISTS, "resources", *bootstrap))

    def _resolvers(self, data: Mapping[Any, Any]) -> NameServers | None:
        """Who resolves the names of clusters that do not say."""
        spelled = schema.spelled(_BOOTSTRAP)
        said = {key: value for key, value in data.items() if spelled.get(key) in _RESOLVERS}
        report = Report()
        try:
            found = name_servers(schema.from_json(_CLUSTER, said), "", report)
        except schema.JsonError as error:
            self.problems.extend(error.problems)
            return None
        self.problems.extend(report.problems)
        self.ignored.extend(Ignored("", "bootstrap", field, value) for field, value in report.ignored)
        return found

    def _static(self, value: object, path: str) -> None:
        if value is None:
            return
        if not isinstance(value, Mapping):
            self.problems.append(f"{path}: must be a mapping, not {type(value).__name__}")
            return
        for key, held in value.items():
            if key in _STATIC_KEYS:
                self._list(_STATIC_KEYS[key], held, f"{path}.{key}")
            else:
                self._unknown(f"{path}.{key}", tuple(_STATIC_KEYS))

    def _node(self, value: object, path: str) -> None:
        place = value.get("locality") if isinstance(value, Mapping) else None
        if isinstance(place, Mapping):
            names = (("region",), ("zone",), ("sub_zone", "subZone"))
            self.locality = Locality(*(self._text(place, keys, f"{path}.locality") for keys in names))
        if value is not None and (not isinstance(value, Mapping) or value.keys() - {"locality"}):
            self._ignore(path, type(value).__name__)

    def _manager(self, value: object, path: str) -> None:
        keys = ("local_cluster_name", "localClusterName")
        if isinstance(value, Mapping):
            self.local_cluster = self._text(value, keys, path)
        if value is not None and (not isinstance(value, Mapping) or value.keys() - {*keys}):
            self._ignore(path, type(value).__name__)

    def _text(self, held: Mapping[Any, Any], keys: tuple[str, ...], path: str) -> str:
        for key in keys:
            given = held.get(key)
            if isinstance(given, str):
                return given
            if given is not None:
                self.problems.append(f"{path}.{key}: must be text, not {type(given).__name__}")
        return ""

    def _ignore(self, path: str, value: str) -> None:
        self.ignored.append(Ignored("", "bootstrap", path, value))

    def _unknown(self, path: str, known: tuple[str, ...]) -> None:
        name = path.rpartition(".")[2]
        close = difflib.get_close_matches(name[:100], known, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known[:6])}, …"
        self.problems.append(f"{path[:200]}: is not known{hint}")

    def _list(self, short: str, value: object, path: str) -> None:
        if value is None:
            return  # an empty key in YAML
        for index, item in enumerate(value if isinstance(value, list | tuple) else (value,)):
            here = f"{path}[{index}]"
            given = item.get("@type") if isinstance(item, Mapping) else None
            if given is not None and given != schema.TYPE_URLS[short]:
                self.problems.append(f"{here}.@type: must be {schema.TYPE_URLS[short]}")
                continue
            self._resource(short, item, here)

    def _resources(self, value: object, path: str) -> None:
        """The shape of Envoy's own resource files: each resource says its type."""
        if value is None:
            return
        for index, item in enumerate(value if isinstance(value, list | tuple) else (value,)):
            given = item.get("@type") if isinstance(item, Mapping) else None
            short = schema.SHORT_NAMES.get(given, "") if isinstance(given, str) else ""
            if short in _LISTS.values():
                self._resource(short, item, f"{path}[{index}]")
            else:
                self.problems.append(
                    f"{path}[{index}].@type: must be one of {', '.join(schema.TYPE_URLS.values())}"
                )

    def _resource(self, short: str, item: object, path: str) -> None:
        kind = schema.type_name(schema.TYPE_URLS[short])
        try:
            message = schema.from_json(kind, item, path=path, typed=True)
        except schema.JsonError as error:
            self.problems.extend(error.problems)
            self._claim(short, item, path)  # so that who names it is not blamed
            return
        except RecursionError:
            self.problems.append(f"{path}: is nested too deep")
            return
        if short == "listener" and not message.name:
            message.name = path  # Envoy makes a name up, too
        found = decode.read(short, message, path)
        self.problems.extend(found.problems)
        name = found.name or path
        if (short, name) in self._places:
            self._double(short, name, path)
            return
        self._places[short, name] = path
        self.ignored.extend(Ignored(name, short, field, value) for field, value in found.ignored)
        made = found.value
        if isinstance(made, Cluster) and made.dns and made.name_servers is None:
            made = replace(made, name_servers=self._name_servers)
        if made is not None:
            self.cache.accept(short, name, made, ignored=found.ignored)

    def _double(self, short: str, name: str, path: str) -> None:
        """Of two listeners with one name Envoy has the first, and says nothing; of other things it refuses the file."""
        before = self._places[short, name]
        if short == "listener":
            self.ignored.append(Ignored(name, short, path, f"the name is already at {before}, which holds"))
        else:
            self.problems.append(f"{path}: {short} {name!r} is already at {before}")

    def _claim(self, short: str, item: object, path: str) -> None:
        for key in ("name", "cluster_name", "clusterName"):
            name = item.get(key) if isinstance(item, Mapping) else None
            if isinstance(name, str):
                self._places.setdefault((short, name), path)

    # --- names

    def check_names(self) -> None:
        """Everything that is named must be in the file."""
        if self.local_cluster:
            self._need("cluster", self.local_cluster, "cluster_manager.local_cluster_name")
        for entry in self.cache.entries("listener"):
            if isinstance(entry.value, Listener):
                self._check_listener(entry.value, self._places["listener", entry.name])
        for entry in self.cache.entries("route"):
            if isinstance(entry.value, RouteConfiguration):
                self._check_routes(entry.value, self._places["route", entry.name])
        for entry in self.cache.entries("cluster"):
            if isinstance(entry.value, Cluster) and entry.value.eds_name:
                self._need(
                    "endpoint",
                    entry.value.eds_name,
                    f"{self._places['cluster', entry.name]}.eds_cluster_config",
                )
            for name in entry.value.children if isinstance(entry.value, Cluster) else ():
                if ("cluster", name) not in self._places:  # Envoy goes on without it
                    self.ignored.append(
                        Ignored(entry.name, "cluster", _CHILDREN, f"{name} is not in the file")
                    )

    def _check_listener(self, listener: Listener, path: str) -> None:
        for name in sorted(tcp_clusters(listener)):
            self._need("cluster", name, path)
        for chain in listener.chains:
            if chain.http is not None and chain.http.route_name:
                self._need("route", chain.http.route_name, path)
            if chain.http is not None and chain.http.routes is not None:
                self._check_routes(chain.http.routes, path)

    def _check_routes(self, routes: RouteConfiguration, path: str) -> None:
        if not routes.validate_clusters:
            return
        for name in sorted(set(_clusters(routes))):
            self._need("cluster", name, path)

    def _need(self, short: str, name: str, path: str) -> None:
        # What is there and wrong has been reported already.
        if (short, name) not in self._places:
            self.problems.append(f"{path}: names {_WORDS[short]} {name!r}, which is not in the file")


_CHILDREN = "cluster_type.typed_config.clusters"
_WORDS = {"cluster": "the cluster", "route": "the route configuration", "endpoint": "the load assignment"}


def _clusters(routes: RouteConfiguration) -> Iterator[str]:
    for host in routes.virtual_hosts:
        yield from clusters_of(host)
    yield from mirrored(routes)
