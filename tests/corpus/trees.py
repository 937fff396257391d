"""Resources rewritten: into one file, and onto loopback, where they can be asked.

Names of fields may be in either spelling: ``get`` and ``pop`` look for both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from tests.corpus.cases import Resources

__all__ = ["as_bootstrap", "get", "pop", "walk"]

Json = dict[str, Any]

_ADS = {"ads": {}, "resource_api_version": "V3"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def get(tree: Any, name: str, default: Any = None) -> Any:
    """The field ``name`` (snake_case) of a tree, in whichever spelling it is there."""
    if not isinstance(tree, Mapping):
        return default
    return tree.get(name, tree.get(_camel(name), default))


def pop(tree: Json, *names: str) -> None:
    for name in names:
        tree.pop(name, None)
        tree.pop(_camel(name), None)


def walk(tree: Any) -> Iterator[Json]:
    """Every mapping in a tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    for item in tree if isinstance(tree, list) else ():
        yield from walk(item)


def as_bootstrap(found: Resources) -> Json:
    """One file with all of them: routes inline, endpoints in their clusters. What calls a control plane has one."""
    found = copy.deepcopy(found)
    routes = {get(item, "name"): item for item in found.routes}
    loads = {get(item, "cluster_name"): item for item in found.endpoints}
    for tree in walk(found.listeners):
        rds = get(tree, "rds")
        if isinstance(rds, Mapping) and get(rds, "route_config_name") in routes:
            pop(tree, "rds")
            tree["route_config"] = {**routes[get(rds, "route_config_name")], "validate_clusters": False}
    for cluster in found.clusters:
        if get(cluster, "type") == "EDS":
            service = get(get(cluster, "eds_cluster_config", {}), "service_name") or cluster["name"]
            pop(cluster, "eds_cluster_config")
            load = dict(loads.get(service, {}))
            pop(load, "cluster_name")
            cluster["type"], cluster["load_assignment"] = "STATIC", {"cluster_name": cluster["name"], **load}
    control_plane = {
        "name": "the-control-plane",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "the-control-plane", "endpoints": []},
    }
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "the-control-plane"}}],
    }
    return {
        "node": {"id": "corpus", "cluster": "corpus"},
        "dynamic_resources": {"ads_config": ads},
        "static_resources": {
            "listeners": found.listeners,
            "clusters": [*found.clusters, control_plane],
            "secrets": list({get(item, "name"): item for item in found.secrets}.values()),
        },
    }
