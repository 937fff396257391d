"""What Kato's agent makes of a governance plugin's settings: xDS v2 resources, with everything that is odd about them.

The messages of v2 have the numbers of v3, so they are made of our own schema, under v2's type URLs; what v3 took away
(``hosts``, ``config``) is put into the bytes by its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from meshlib.xds import schema

__all__ = [
    "CLUSTER",
    "ENDPOINT",
    "LISTENER",
    "ROUTE",
    "Packed",
    "Place",
    "Service",
    "Settings",
    "node_parts",
    "resources",
]

_URL = "type.googleapis.com/"
LISTENER = _URL + "envoy.api.v2.Listener"
CLUSTER = _URL + "envoy.api.v2.Cluster"
ENDPOINT = _URL + "envoy.api.v2.ClusterLoadAssignment"
ROUTE = _URL + "envoy.api.v2.RouteConfiguration"
_HCM = _URL + "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
_TCP = _URL + "envoy.config.filter.network.tcp_proxy.v2.TcpProxy"
_TLS = _URL + "envoy.api.v2.auth.UpstreamTlsContext"

_HTTP = ("http", "https")
_HTTP2 = ("http2", "grpc")
_UDP = 1
_EDS, _LOGICAL_DNS, _STATIC = 3, 2, 0
_HOSTS, _CONFIG = 7, 2  # the numbers of what v3 took away

#: Name and packed message.
Packed: TypeAlias = "tuple[str, schema.WireMessage]"
Settings: TypeAlias = "Mapping[str, Any]"
"""The JSON of a config map: ``base_services``, ``base_ports``, ``base_normal``."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Kubernetes Service of a component, and its Endpoints. ``subsets``: addresses that are ready, of each subset; ``unready``: those
    that are not. ``inner``: the port that the component listens on, where a plugin listens before it. ``domain``: it is a
    component of somebody else's, at ``[https://]host``; ``rewrite``: calls carry that as their host.
    """

    alias: str
    port: int
    subsets: tuple[tuple[str, ...], ...] = ()
    unready: tuple[str, ...] = ()
    inner: int = 0
    domain: str = ""
    rewrite: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Whose resources they are. ``xds_cluster``: how an Envoy's bootstrap calls the agent. ``common_http``: whether there is a listener for
    hosts by name; the default mesh has none.
    """

    namespace: str
    plugin: str
    alias: str
    xds_cluster: str = "kato_xds_cluster"
    common_http: bool = True

    def name(self, *parts: object) -> str:
        return "_".join(map(str, (self.namespace, self.alias, *parts)))


def node_parts(node: str, xds_cluster: str) -> Place:
    """``namespace_plugin_alias``. Raises ValueError for anything else."""
    parts = node.split("_")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"a node is namespace_plugin_alias, not {node!r}")
    namespace, plugin, alias = parts
    return Place(namespace, plugin, alias, xds_cluster, "def-mesh" not in plugin)


def resources(place: Place, settings: Settings, services: Sequence[Service]) -> dict[str, list[Packed]]:
    """By type URL. Raises TypeError for an option that is no text: the agent would crash."""
    for row in (*settings.get("base_services", ()), *settings.get("base_ports", ())):
        for key, value in row.get("options", {}).items():
            if not isinstance(value, str):
                raise TypeError(f"options.{key}: {value!r} is no text, and the agent would crash")
    known = {(service.alias, service.port): service for service in services}
    rows = [
        (row, known[row["depend_service_alias"], row["port"]])
        for row in settings.get("base_services", ())
        if (row["depend_service_alias"], row["port"]) in known
    ]
    ports = settings.get("base_ports", ())
    return {
        LISTENER: list(_listeners(place, rows, ports)),
        CLUSTER: list(_clusters(place, rows, ports)),
        ENDPOINT: list(_assignments(place, rows)),
    }


_Rows: TypeAlias = "Sequence[tuple[Mapping[str, Any], Service]]"


# --- clusters


def _clusters(place: Place, rows: _Rows, ports: Sequence[Mapping[str, Any]]) -> Iterator[Packed]:
    seen = set()
    for row, service in rows:
        name = place.name(service.alias, service.port)
        if name not in seen:
            seen.add(name)
            yield name, _packed(CLUSTER, _cluster(place, name, row, service))
    for row in ports:
        name = place.name(row["port"])
        made = _message("envoy.config.cluster.v3.Cluster", name=name, type=_STATIC)
        _policies(made, row.get("options", {}))
        per_connection = _number(row.get("options", {}), "MaxRequestsPerConnection", 0)
        if per_connection:
            made.max_requests_per_connection.value = per_connection
        made.MergeFromString(_raw(_HOSTS, _address(f"127.0.0.1:{row['port']}")))
        yield name, _packed(CLUSTER, made)


def _cluster(place: Place, name: str, row: Mapping[str, Any], service: Service) -> schema.WireMessage:
    made = _message("envoy.config.cluster.v3.Cluster", name=name, type=_EDS)
    options = row.get("options", {})
    _policies(made, options)
    if row["protocol"] in _HTTP2:
        made.http2_protocol_options.SetInParent()
    if row["protocol"] == "grpc" and options.get("GrpcHealthServiceName"):
        made.health_checks.add().MergeFromString(_health_check(options))
    if service.domain:
        _third_party(made, service)
        return made
    made.eds_cluster_config.service_name = name
    source = made.eds_cluster_config.eds_config.api_config_source
    source.api_type = 2  # GRPC
    source.grpc_services.add().envoy_grpc.cluster_name = place.xds_cluster
    return made


def _third_party(made: schema.WireMessage, service: Service) -> None:
    scheme, _, host = service.domain.rpartition("://")
    made.type = _LOGICAL_DNS
    made.load_assignment.cluster_name = made.name
    point = made.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    point.address.CopyFrom(
        _address(host if ":" in host else f"{host}:{443 if scheme == 'https' else service.port}")
    )
    if scheme == "https":
        made.transport_socket.name = "envoy.transport_sockets.tls"
        inner = _message(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni=host.partition(":")[0]
        )
        made.transport_socket.typed_config.CopyFrom(_packed(_TLS, inner))


def _policies(made: schema.WireMessage, options: Mapping[str, str]) -> None:
    made.connect_timeout.seconds = _number(options, "ConnectionTimeout", 250)
    made.common_lb_config.healthy_panic_threshold.value = _number(options, "HealthyPanicThreshold", 50) / 100
    limits = made.circuit_breakers.thresholds.add()
    limits.max_connections.value = _number(options, "MaxConnections", 10240)
    limits.max_pending_requests.value = _number(options, "MaxPendingRequests", 1024)
    limits.max_requests.value = _number(options, "MaxRequests", 10240)
    limits.max_retries.value = _number(options, "MaxActiveRetries", 3)
    outlier = made.outlier_detection
    outlier.consecutive_5xx.value = _number(options, "ConsecutiveErrors", 5)
    outlier.interval.seconds = 10  # whatever IntervalMS says
    outlier.base_ejection_time.seconds = _number(options, "BaseEjectionTimeMS", 30000) // 1000
    outlier.max_ejection_percent.value = min(_number(options, "MaxEjectionPercent", 10), 100)


def _health_check(options: Mapping[str, str]) -> bytes:
    duration = "google.protobuf.Duration"
    whole = "google.protobuf.UInt32Value"
    timeout = _message(duration, seconds=_number(options, "HealthCheckTimeout", 5))
    interval = _message(duration, seconds=_number(options, "HealthCheckInterval", 4))
    named = options["GrpcHealthServiceName"].encode()
    return b"".join(
        (
            _raw(1, timeout),
            _raw(2, interval),
            _raw(4, _message(whole, value=2)),
            _raw(5, _message(whole, value=1)),
            _raw(11, b"\x0a" + schema.varint(len(named)) + named),
        )
    )


# --- endpoints


def _assignments(place: Place, rows: _Rows) -> Iterator[Packed]:
    seen = set()
    for _, service in rows:
        name = place.name(service.alias, service.port)
        if name in seen or service.domain:
            continue
        seen.add(name)
        yield name, _packed(ENDPOINT, _assignment(name, service))


def _assignment(name: str, service: Service) -> schema.WireMessage:
    """Health is presence; one address without a port for health checks says that none is ready."""
    made = _message("envoy.config.endpoint.v3.ClusterLoadAssignment", cluster_name=name)
    for subset in service.subsets:
        if subset:
            group = made.endpoints.add()
            for address in subset:
                point = group.lb_endpoints.add().endpoint
                point.address.CopyFrom(_address(address))
                point.health_check_config.port_value = int(address.rpartition(":")[2])
    if not len(made.endpoints) and service.unready:
        made.endpoints.add().lb_endpoints.add().endpoint.address.CopyFrom(_address(service.unready[0]))
    return made


# --- listeners


def _listeners(place: Place, rows: _Rows, ports: Sequence[Mapping[str, Any]]) -> Iterator[Packed]:
    taken = set()
    for row, service in rows:  # who comes later on the same port has no listener
        port = service.inner or service.port
        if port in taken:
            continue
        taken.add(port)
        name = place.name(port)
        if row["protocol"] == "udp":
            yield name, _packed(LISTENER, _udp_listener(name, port, place.name(service.alias, service.port)))
            continue
        proxy = _tcp_proxy(place.name(service.alias, service.port), row.get("options", {}))
        yield (
            name,
            _packed(
                LISTENER, _listener(name, f"127.0.0.1:{port}", [_filter("envoy.tcp_proxy", _TCP, proxy)])
            ),
        )
    by_name = [(row, service) for row, service in rows if row["protocol"] in _HTTP]
    if by_name and place.common_http:
        name = place.name("http", 80)
        yield name, _packed(LISTENER, _http_listener(name, "127.0.0.1:80", _virtual_hosts(place, by_name)))
    for row in ports:
        yield _inbound(place, row)


def _inbound(place: Place, row: Mapping[str, Any]) -> Packed:
    name, where = place.name(row["port"]), f"0.0.0.0:{row['listen_port']}"
    options = row.get("options", {})
    if row["protocol"] not in _HTTP:
        made = _listener(name, where, [_filter("envoy.tcp_proxy", _TCP, _tcp_proxy(name, options))])
        return name, _packed(LISTENER, made)
    host = _message("envoy.config.route.v3.VirtualHost", name=name, domains=["*"])
    _route(host, "/", "").route.cluster = name
    limited = options.get("OPEN_LIMIT", "").lower() in ("yes", "true")
    domain = options.get("LIMIT_DOMAIN", "limit.common") if limited else ""
    return name, _packed(LISTENER, _http_listener(name, where, [host], domain))


def _listener(name: str, where: str, filters: Sequence[schema.WireMessage]) -> schema.WireMessage:
    made = _message("envoy.config.listener.v3.Listener", name=name)
    made.address.CopyFrom(_address(where))
    made.filter_chains.add().filters.extend(filters)
    return made


def _udp_listener(name: str, port: int, cluster: str) -> schema.WireMessage:
    made = _message("envoy.config.listener.v3.Listener", name=name)
    made.address.CopyFrom(_address(f"127.0.0.1:{port}"))
    made.address.socket_address.protocol = _UDP
    udp = made.listener_filters.add(name="envoy.filters.udp_listener.udp_proxy")
    udp.typed_config.type_url = _URL + "envoy.config.filter.udp.udp_proxy.v2alpha.UdpProxyConfig"
    stat, named = name.encode(), cluster.encode()
    udp.typed_config.value = (
        b"\x0a" + schema.varint(len(stat)) + stat + b"\x12" + schema.varint(len(named)) + named
    )
    return made


def _http_listener(
    name: str, where: str, hosts: Sequence[schema.WireMessage], limit: str = ""
) -> schema.WireMessage:
    manager = _message(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix=name
    )
    manager.route_config.name = name
    manager.route_config.virtual_hosts.extend(hosts)
    if limit:
        limiter = manager.http_filters.add(name="envoy.rate_limit")
        service = {"grpc_service": {"envoy_grpc": {"cluster_name": "rate_limit_service_cluster"}}}
        settings = {"domain": limit, "rate_limit_service": service}
        limiter.MergeFromString(_raw(_CONFIG, schema.from_json("google.protobuf.Struct", settings)))
    manager.http_filters.add(name="envoy.router")
    return _listener(name, where, [_filter("envoy.http_connection_manager", _HCM, manager)])


def _tcp_proxy(cluster: str, options: Mapping[str, str]) -> schema.WireMessage:
    made = _message(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=cluster, cluster=cluster
    )
    made.idle_timeout.seconds = _number(options, "TCPIdleTimeout", 7200)
    return made


def _filter(name: str, url: str, settings: schema.WireMessage) -> schema.WireMessage:
    made = _message("envoy.config.listener.v3.Filter", name=name)
    made.typed_config.CopyFrom(_packed(url, settings))
    return made


# --- routes


def _virtual_hosts(place: Place, rows: _Rows) -> list[schema.WireMessage]:
    """One for each distinct (prefix, headers, domains); rows that are equal in all three share it by weight."""
    groups: dict[tuple[str, str, str], list[tuple[Mapping[str, Any], Service]]] = {}
    for row, service in rows:
        options = row.get("options", {})
        key = (options.get("Prefix") or "/", options.get("Headers", ""), options.get("Domains") or "*")
        groups.setdefault(key, []).append((row, service))
    made = []
    for (prefix, headers, domains), those in groups.items():
        names = [each.strip() for each in domains.split(",")]
        first = those[0][1]
        host = _message(
            "envoy.config.route.v3.VirtualHost", name=place.name(first.alias, first.port), domains=names
        )
        action = _route(host, prefix, headers).route
        if first.rewrite and len(those) == 1:
            action.cluster = place.name(first.alias, first.port)
            action.host_rewrite_literal = first.domain.rpartition("://")[2]
        else:
            for row, service in those:
                share = action.weighted_clusters.clusters.add(name=place.name(service.alias, service.port))
                share.weight.value = _number(row.get("options", {}), "Weight", 100)
        made.append(host)
    return made


def _route(host: schema.WireMessage, prefix: str, headers: str) -> Any:
    """Of the headers only the last one holds, as a prefix."""
    made = host.routes.add()
    made.match.prefix = prefix
    pairs = [each.partition(":") for each in headers.split(";") if ":" in each and each != "has_header:no"]
    for name, _, value in pairs[-1:]:
        made.match.headers.add(name=name.strip(), prefix_match=value.strip())
    return made


# --- small things


def _number(options: Mapping[str, str], key: str, default: int) -> int:
    """Zero means the default."""
    try:
        return int(options.get(key, "")) or default
    except ValueError:
        return default


def _message(kind: str, /, **fields: Any) -> schema.WireMessage:
    return schema.message(kind)(**fields)


def _packed(url: str, inner: schema.WireMessage) -> schema.WireMessage:
    return _message("google.protobuf.Any", type_url=url, value=inner.SerializeToString(deterministic=True))


def _address(text: str) -> schema.WireMessage:
    host, _, port = text.rpartition(":")
    made = _message("envoy.config.core.v3.Address")
    made.socket_address.address, made.socket_address.port_value = host, int(port)
    return made


def _raw(number: int, inner: schema.WireMessage | bytes) -> bytes:
    """A field by its number."""
    held = inner if isinstance(inner, bytes) else inner.SerializeToString(deterministic=True)
    return schema.varint(number << 3 | 2) + schema.varint(len(held)) + held
