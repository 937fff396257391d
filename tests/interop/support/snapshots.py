"""Snapshots for go-control-plane: proto JSON of the same services in both views of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.interop.support.upstreams import Upstream

PORT = 9080  # what a sidecar would listen on; nothing does
_TYPE = "type.googleapis.com/envoy.extensions.filters"
_ADS = {"ads": {}, "resourceApiVersion": "V3"}


def snapshot(view: str, node: str, version: str, *services: Service) -> dict[str, Any]:
    """The whole state of a node: `services` as api_listeners (``"target"``) or behind socket listeners, one for each
    port (``"sidecar"``). A service is called as ``http://NAME:9080/``.
    """
    make = _target_listeners if view == "target" else _sidecar_listeners
    listeners, routes = make(services)
    return {
        "node": node,
        "version": version,
        "listeners": listeners,
        "routes": routes,
        "clusters": [cluster(name) for service in services for name in service.clusters],
        "endpoints": [
            assignment(name, found) for service in services for name, found in service.clusters.items()
        ],
    }


class Service:
    """A host, the clusters behind it, and the shares of its calls that they get (default: the first gets all)."""

    def __init__(
        self, host: str, clusters: Mapping[str, Iterable[Upstream]], shares: Mapping[str, int] | None = None
    ) -> None:
        self.host = host
        self.clusters = {name: list(upstreams) for name, upstreams in clusters.items()}
        self.shares = dict(shares) if shares is not None else {next(iter(self.clusters)): 1}

    def virtual_host(self) -> dict[str, Any]:
        weighted = [{"name": name, "weight": weight} for name, weight in self.shares.items()]
        return {
            "name": self.host,
            "domains": [self.host, f"{self.host}:{PORT}"],
            "routes": [{"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": weighted}}}],
        }


def cluster(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "EDS",
        "connectTimeout": "2s",
        "edsClusterConfig": {"edsConfig": _ADS},
        "lbPolicy": "ROUND_ROBIN",
    }


def assignment(name: str, upstreams: Iterable[Upstream]) -> dict[str, Any]:
    sockets = [{"address": "127.0.0.1", "portValue": upstream.port} for upstream in upstreams]
    return {
        "clusterName": name,
        "endpoints": [
            {
                "locality": {"zone": "here"},
                "loadBalancingWeight": 1,
                "lbEndpoints": [{"endpoint": {"address": {"socketAddress": socket}}} for socket in sockets],
            }
        ],
    }


def tcp_listener(name: str, port: int, to: str) -> dict[str, Any]:
    proxy = {"@type": f"{_TYPE}.network.tcp_proxy.v3.TcpProxy", "statPrefix": name, "cluster": to}
    return {
        "name": name,
        "address": {"socketAddress": {"address": "0.0.0.0", "portValue": port}},
        "filterChains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typedConfig": proxy}]}],
    }


def _manager(routes: str) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": routes,
        "rds": {"routeConfigName": routes, "configSource": _ADS},
        "httpFilters": [
            {"name": "envoy.filters.http.router", "typedConfig": {"@type": f"{_TYPE}.http.router.v3.Router"}}
        ],
    }


def _target_listeners(services: Iterable[Service]) -> tuple[list[Any], list[Any]]:
    """One listener and one route configuration a service, named as gRPC asks: the authority."""
    listeners, routes = [], []
    for service in services:
        name = f"{service.host}:{PORT}"
        listeners.append({"name": name, "apiListener": {"apiListener": _manager(name)}})
        routes.append({"name": name, "virtualHosts": [service.virtual_host()]})
    return listeners, routes


def _sidecar_listeners(services: Iterable[Service]) -> tuple[list[Any], list[Any]]:
    """One listener and one route configuration for all, as an Envoy would get them."""
    listener = {
        "name": "outbound",
        "address": {"socketAddress": {"address": "0.0.0.0", "portValue": PORT}},
        "filterChains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typedConfig": _manager(str(PORT)),
                    }
                ]
            }
        ],
    }
    return [listener], [{"name": str(PORT), "virtualHosts": [service.virtual_host() for service in services]}]
