"""A set of resources moved onto loopback: listeners on ports here, clusters with one upstream of ours each.

Nothing that decides how a call is routed changes. What goes: TLS on either side, protocols but HTTP/1.1, how endpoints
are found, logs and spans, chains that only TLS can reach.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.testing import build
from meshlib.xds import schema
from tests.corpus.cases import Resources
from tests.corpus.trees import get, pop

__all__ = ["Served", "served"]

Json = dict[str, Any]

_HCM = "HttpConnectionManager"
#: Of a cluster: what says how its endpoints are found and reached.
_REACHED = (
    "cluster_type", "transport_socket", "transport_socket_matches", "typed_extension_protocol_options",
    "health_checks", "upstream_bind_config", "dns_lookup_family", "dns_refresh_rate", "respect_dns_ttl",
    "typed_dns_resolver_config", "http2_protocol_options", "upstream_connection_options", "track_cluster_stats",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """Resources for a control plane; of each listener its name in the set, and its routes."""

    resources: list[Json] = field(default_factory=list)
    listeners: list[tuple[str, Json]] = field(default_factory=list)


def served(found: Resources, upstreams: list[str]) -> Served:
    """Listeners come without an address, clusters with one of ``upstreams`` by turns."""
    found = copy.deepcopy(found)
    made = Served()
    routes = {item["name"]: item for item in found.routes}
    for index, listener in enumerate(found.listeners):
        listener.setdefault("name", f"listener-{index}")
        _listener(listener, routes, made)
    for index, cluster in enumerate(found.clusters):
        made.resources.extend(_cluster(cluster, upstreams[index % len(upstreams)], found))
    made.resources.extend({"@type": schema.ROUTE, **item} for item in found.routes)
    return made


def _listener(listener: Json, routes: Mapping[str, Json], made: Served) -> None:
    """The first chain that speaks HTTP, for every call."""
    if get(listener, "udp_listener_config") is not None or get(listener, "api_listener") is not None:
        return
    chains = [get(listener, "default_filter_chain"), *(get(listener, "filter_chains") or ())]
    for chain in (chain for chain in chains if chain):
        filters = get(chain, "filters") or []
        managers = [
            get(item, "typed_config")
            for item in filters
            if _HCM in str(get(get(item, "typed_config", {}), "@type"))
        ]
        if not managers:
            continue
        manager = managers[-1]
        pop(manager, "access_log", "tracing", "codec_type", "http3_protocol_options")
        table = get(manager, "route_config") or routes.get(get(get(manager, "rds", {}), "route_config_name"))
        if table is None:
            return
        kept: Json = {
            "@type": schema.LISTENER,
            "name": listener["name"],
            "filter_chains": [{"filters": filters}],
        }
        made.resources.append(kept)
        made.listeners.append((listener["name"], table))
        return


def _cluster(cluster: Json, upstream: str, found: Resources) -> Iterator[Json]:
    if get(cluster, "type") == "ORIGINAL_DST" or "aggregate" in str(
        get(get(cluster, "cluster_type", {}), "name")
    ):
        return
    service = get(get(cluster, "eds_cluster_config", {}), "service_name") or cluster["name"]
    load: Json = next((item for item in found.endpoints if get(item, "cluster_name") == service), {})
    load = get(cluster, "load_assignment") or load
    pop(cluster, *_REACHED)
    endpoints = [build.locality(build.endpoint(upstream))] if _has_endpoints(load) else []
    if get(cluster, "type") == "EDS":
        pop(cluster, "load_assignment")
        yield {"@type": schema.ENDPOINT, "cluster_name": service, "endpoints": endpoints}
    else:
        pop(cluster, "eds_cluster_config", "load_assignment")
        cluster["type"] = "STATIC"
        cluster["load_assignment"] = {"cluster_name": cluster["name"], "endpoints": endpoints}
    yield {"@type": schema.CLUSTER, **cluster}


def _has_endpoints(load: Json) -> bool:
    return any(get(group, "lb_endpoints") for group in get(load, "endpoints") or ())
