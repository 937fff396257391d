"""Resources in a line each, as mappings in the shape of Envoy's own JSON.

    build.cluster("reviews", ["127.0.0.1:8001", "127.0.0.1:8002"])
    build.api_listener("reviews", build.route_config("r", build.virtual_host("v", build.route(cluster="reviews"))))

`listener`, `tcp_listener`, `api_listener`, `route_config`, `cluster`, `endpoints` and `secret` make whole resources: they carry `@type`, so a
control plane knows what they are. Every function takes further fields by their own names (`cluster("a", connect_timeout="1s")`), which
win over what it sets itself. Durations are given as seconds or as Envoy's text. The results are plain dictionaries:
change them as you like before they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

__all__ = [
    "ADS",
    "HTTP_CONNECTION_MANAGER",
    "ROUTER",
    "Json",
    "aggregate",
    "any_of",
    "api_listener",
    "cluster",
    "duration",
    "endpoint",
    "endpoints",
    "filter_chain",
    "header",
    "http_connection_manager",
    "listener",
    "locality",
    "route",
    "route_config",
    "secret",
    "socket_address",
    "tcp_listener",
    "virtual_host",
    "without_type",
]

Json: TypeAlias = dict[str, Any]

_TYPES = "type.googleapis.com/"
_LISTENER = "envoy.config.listener.v3.Listener"
_FILTER_CHAIN = "envoy.config.listener.v3.FilterChain"
_ROUTE = "envoy.config.route.v3.RouteConfiguration"
_CLUSTER = "envoy.config.cluster.v3.Cluster"
_AGGREGATE = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_ENDPOINT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
_TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP_CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

# "From the server that this resource came from", over the aggregated stream.
ADS: Mapping[str, Any] = {"ads": {}, "resource_api_version": "V3"}


def any_of(name: str, value: Mapping[str, Any] | None = None) -> Json:
    """An Any of the message `name` (an upstream name) with these fields."""
    return {"@type": _TYPES + name, **(value or {})}


def without_type(resource: Mapping[str, Any]) -> Json:
    """The resource as it stands inside another one, or in the lists of an Envoy configuration file."""
    return {key: value for key, value in resource.items() if key != "@type"}


ROUTER: Mapping[str, Any] = {
    "name": "envoy.filters.http.router",
    "typed_config": any_of("envoy.extensions.filters.http.router.v3.Router"),
}


def duration(value: float | str) -> str:
    """Envoy's text for a number of seconds; text stays as it is."""
    if isinstance(value, str):
        return value
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def socket_address(address: str) -> Json:
    """An Address of `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"an address is host:port, [v6]:port or unix:/path, not {address!r}")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def header(name: str, value: str, *, action: str = "APPEND_IF_EXISTS_OR_ADD", **fields: Any) -> Json:
    """A HeaderValueOption, for `request_headers_to_add` and `response_headers_to_add`."""
    return {"header": {"key": name, "value": value}, "append_action": action, **fields}


# ------------------------------------------------------------------------------------------------------- listeners


def http_connection_manager(
    routes: Mapping[str, Any] | str, *, filters: Sequence[Mapping[str, Any]] = (), **fields: Any
) -> Json:
    """An Any of an HttpConnectionManager. `routes`: a route configuration (inline), or the name of one (by RDS).

    `filters` stand before the router, which is added.
    """
    by_name = {"rds": {"route_config_name": routes, "config_source": dict(ADS)}}
    made: Json = {"stat_prefix": "meshlib"}
    made |= by_name if isinstance(routes, str) else {"route_config": without_type(routes)}
    made["http_filters"] = [*filters, dict(ROUTER)]
    return any_of(HTTP_CONNECTION_MANAGER, made | fields)


def listener(
    name: str,
    routes: Mapping[str, Any] | str,
    *,
    address: str = "127.0.0.1:80",
    filters: Sequence[Mapping[str, Any]] = (),
    manager: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Json:
    """A Listener as for an Envoy: a socket address, one filter chain, an HTTP connection manager.

    `routes` and `filters`: see `http_connection_manager`; `manager`: further fields of it.
    """
    chain = without_type(filter_chain("", routes, filters=filters, manager=manager))
    return any_of(
        _LISTENER, {"name": name, "address": socket_address(address), "filter_chains": [chain], **fields}
    )


def filter_chain(
    name: str,
    routes: Mapping[str, Any] | str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    manager: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Json:
    """A FilterChain that comes by itself (`fcds_config`): as the one of a `listener`."""
    config = http_connection_manager(routes, filters=filters, **(manager or {}))
    held = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]
    named = {"name": name} if name else {}
    return any_of(_FILTER_CHAIN, {**named, "filters": held, **fields})


def tcp_listener(
    name: str, clusters: str | Mapping[str, int], *, address: str = "127.0.0.1:80", **fields: Any
) -> Json:
    """A Listener as for an Envoy: a socket address, one filter chain, a TCP proxy to this cluster, or to these by weight."""
    proxy: Json = {"stat_prefix": "meshlib"}
    if isinstance(clusters, str):
        proxy["cluster"] = clusters
    else:
        entries = [{"name": cluster, "weight": weight} for cluster, weight in clusters.items()]
        proxy["weighted_clusters"] = {"clusters": entries}
    chain = {
        "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": any_of(_TCP_PROXY, proxy)}]
    }
    return any_of(
        _LISTENER, {"name": name, "address": socket_address(address), "filter_chains": [chain], **fields}
    )


def api_listener(
    name: str,
    routes: Mapping[str, Any] | str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    manager: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Json:
    """A Listener as for a client without a proxy: its `api_listener` holds the HTTP connection manager."""
    config = http_connection_manager(routes, filters=filters, **(manager or {}))
    return any_of(_LISTENER, {"name": name, "api_listener": {"api_listener": config}, **fields})


# ---------------------------------------------------------------------------------------------------------- routes


def route_config(name: str, *virtual_hosts: Mapping[str, Any], **fields: Any) -> Json:
    """A RouteConfiguration."""
    return any_of(_ROUTE, {"name": name, "virtual_hosts": list(virtual_hosts), **fields})


def virtual_host(
    name: str, *routes: Mapping[str, Any], domains: Iterable[str] = ("*",), **fields: Any
) -> Json:
    """A VirtualHost; without `domains` it is the one for every authority."""
    return {"name": name, "domains": list(domains), "routes": list(routes), **fields}


def route(
    prefix: str | None = None,
    *,
    path: str | None = None,
    regex: str | None = None,
    match: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    cluster: str | None = None,
    weights: Mapping[str, int] | None = None,
    action: Mapping[str, Any] | None = None,
    redirect: Mapping[str, Any] | None = None,
    respond: tuple[int, str] | None = None,
    timeout: float | str | None = None,
    retry: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Json:
    """A Route.

    What matches: `prefix` (default `/`), `path` or `regex`; `headers` (name to exact value); `match`: further fields
    of the RouteMatch. What happens, one of: `cluster`, `weights` (cluster to weight), `redirect` (a
    RedirectAction), `respond` (status and body). `action`: further fields of the RouteAction; `timeout` and `retry`
    (a RetryPolicy) are two of them.
    """
    matches = _route_match(prefix, path, regex) | {
        "headers": [
            {"name": name, "string_match": {"exact": value}} for name, value in (headers or {}).items()
        ]
    }
    if redirect is not None:
        does: Json = {"redirect": dict(redirect)}
    elif respond is not None:
        does = {"direct_response": {"status": respond[0], "body": {"inline_string": respond[1]}}}
    else:
        does = {"route": _route_action(cluster, weights, timeout, retry) | dict(action or {})}
    return {"match": matches | dict(match or {}), **does, **fields}


def _route_match(prefix: str | None, path: str | None, regex: str | None) -> Json:
    if path is not None:
        return {"path": path}
    if regex is not None:
        return {"safe_regex": {"regex": regex}}
    return {"prefix": "/" if prefix is None else prefix}


def _route_action(
    cluster: str | None,
    weights: Mapping[str, int] | None,
    timeout: float | str | None,
    retry: Mapping[str, Any] | None,
) -> Json:
    does: Json = {}
    if cluster is not None:
        does["cluster"] = cluster
    if weights is not None:
        does["weighted_clusters"] = {
            "clusters": [{"name": name, "weight": weight} for name, weight in weights.items()]
        }
    if timeout is not None:
        does["timeout"] = duration(timeout)
    if retry is not None:
        does["retry_policy"] = dict(retry)
    return does


# ----------------------------------------------------------------------------------------------------- clusters


def cluster(
    name: str,
    addresses: Sequence[str | Mapping[str, Any]] | None = None,
    *,
    type: str | None = None,  # noqa: A002  (the field's own name)
    service_name: str = "",
    lb_policy: str = "ROUND_ROBIN",
    connect_timeout: float | str = 1.0,
    **fields: Any,
) -> Json:
    """A Cluster: EDS, or STATIC where it is given `addresses` (another `type` may be named for them)."""
    made: Json = {"name": name, "lb_policy": lb_policy, "connect_timeout": duration(connect_timeout)}
    made["type"] = type or ("EDS" if addresses is None else "STATIC")
    if addresses is not None:
        made["load_assignment"] = without_type(endpoints(name, *addresses))
    if made["type"] == "EDS":
        made["eds_cluster_config"] = {"eds_config": dict(ADS)}
        if service_name:
            made["eds_cluster_config"]["service_name"] = service_name
    return any_of(_CLUSTER, made | fields)


def aggregate(name: str, *clusters: str, **fields: Any) -> Json:
    """A Cluster that is an aggregate of `clusters`: calls go to the first of them that can be called."""
    inner = any_of(_AGGREGATE, {"clusters": list(clusters)})
    kind = {"name": "envoy.clusters.aggregate", "typed_config": inner}
    made: Json = {"name": name, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": kind}
    return any_of(_CLUSTER, made | fields)


def endpoint(
    address: str, *, weight: int | None = None, health: str | None = None, hostname: str = "", **fields: Any
) -> Json:
    """An LbEndpoint. `health` is a HealthStatus, such as `DRAINING`."""
    inner: Json = {"address": socket_address(address)}
    if hostname:
        inner["hostname"] = hostname
    made: Json = {"endpoint": inner}
    if weight is not None:
        made["load_balancing_weight"] = weight
    if health is not None:
        made["health_status"] = health
    return made | fields


def locality(
    *members: str | Mapping[str, Any],
    region: str = "",
    zone: str = "",
    sub_zone: str = "",
    weight: int | None = 1,
    priority: int = 0,
    **fields: Any,
) -> Json:
    """A LocalityLbEndpoints of addresses or of what `endpoint` makes."""
    where = {"region": region, "zone": zone, "sub_zone": sub_zone}
    made: Json = {"locality": {part: text for part, text in where.items() if text}}
    made["lb_endpoints"] = [
        endpoint(member) if isinstance(member, str) else dict(member) for member in members
    ]
    if weight is not None:
        made["load_balancing_weight"] = weight
    if priority:
        made["priority"] = priority
    return made | fields


def endpoints(name: str, *members: str | Mapping[str, Any], **fields: Any) -> Json:
    """A ClusterLoadAssignment of addresses, of what `endpoint` makes, or of what `locality` makes.

    Addresses and endpoints share one locality of weight 1.
    """
    localities = [
        dict(member) for member in members if not isinstance(member, str) and "lb_endpoints" in member
    ]
    loose = [member for member in members if isinstance(member, str) or "lb_endpoints" not in member]
    made = [locality(*loose), *localities] if loose else localities
    return any_of(_ENDPOINT, {"cluster_name": name, "endpoints": made, **fields})


def secret(name: str, *, certificate: str = "", key: str = "", ca: str = "", **fields: Any) -> Json:
    """A Secret of PEM text: a certificate and its key, or (`ca`) whom to trust."""
    if ca:
        held: Json = {"validation_context": {"trusted_ca": {"inline_string": ca}}}
    elif certificate or key:
        pair = {"certificate_chain": certificate, "private_key": key}
        held = {"tls_certificate": {field: {"inline_string": text} for field, text in pair.items() if text}}
    else:
        held = {}
    return any_of(_SECRET, {"name": name, **held, **fields})
