"""The methods of the discovery services, one for each type of resource: what they are called in v3 and in v2."""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.xds import schema

__all__ = ["method"]

#: (package in v3, package in v2, service, what its methods end with) by the type's short name.
_SERVICES: Mapping[str, tuple[str, str, str, str]] = {
    "listener": ("envoy.service.listener.v3", "envoy.api.v2", "Listener", "Listeners"),
    "route": ("envoy.service.route.v3", "envoy.api.v2", "Route", "Routes"),
    "cluster": ("envoy.service.cluster.v3", "envoy.api.v2", "Cluster", "Clusters"),
    "endpoint": ("envoy.service.endpoint.v3", "envoy.api.v2", "Endpoint", "Endpoints"),
    "extension": (
        "envoy.service.extension.v3",
        "envoy.service.extension.v3",  # v2 has none, and nothing of v2 asks for one
        "ExtensionConfig",
        "ExtensionConfigs",
    ),
    # Nobody has defined a service for these yet: a server that has none says so, and nothing of them comes.
    "filter_chain": (
        "envoy.service.listener.v3",
        "envoy.service.listener.v3",
        "FilterChain",
        "FilterChains",
    ),
    "secret": ("envoy.service.secret.v3", "envoy.service.discovery.v2", "Secret", "Secrets"),
}
assert _SERVICES.keys() == schema.TYPE_URLS.keys()


def method(api: str, short: str, verb: str) -> str:
    """``api``: "v3" or "v2"; ``verb``: "Stream" (state of the world), "Delta" (incremental) or "Fetch" (unary). Raises KeyError for a type that has none."""
    of_v3, of_v2, service, plural = _SERVICES[short]
    return f"/{of_v2 if api == 'v2' else of_v3}.{service}DiscoveryService/{verb}{plural}"
