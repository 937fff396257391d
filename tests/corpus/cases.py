"""What there is to try: whole files, and sets of resources as a control plane would send them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from meshlib.config.files import read
from tests.corpus.modules import checkout, folder

__all__ = ["Resources", "files", "resources"]

Json = dict[str, Any]

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_MESSAGES = {
    "listeners": "Listener",
    "routes": "RouteConfiguration",
    "clusters": "Cluster",
    "endpoints": "ClusterLoadAssignment",
    "secrets": "Secret",
}
_KINDS = tuple(_MESSAGES)


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one set, in JSON's shape (names of fields in either spelling)."""

    name: str
    listeners: list[Json] = field(default_factory=list)
    routes: list[Json] = field(default_factory=list)
    clusters: list[Json] = field(default_factory=list)
    endpoints: list[Json] = field(default_factory=list)
    secrets: list[Json] = field(default_factory=list)


def files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every file that is a bootstrap, or part of one."""
    for project, pattern in (
        ("gateway", "internal/xds/bootstrap/testdata/*/*.yaml"),
        ("istio", "pkg/bootstrap/testdata/*_golden.json"),
        ("go-control-plane", "sample/bootstrap-*.yaml"),
        ("ratelimit", "examples/envoy/*.yaml"),
    ):
        top = folder(project)
        for path in sorted(top.glob(pattern)):
            if re.search(r"^[ {\"]*(?:static|dynamic)_?[rR]esources", path.read_text(), re.MULTILINE):
                yield f"{project}/{path.relative_to(top)}", path


def resources() -> Iterator[Resources]:
    """Every set."""
    yield from _gateway()
    yield from _istio()
    yield from kuma()


def _gateway() -> Iterator[Resources]:
    """A file a type, each a list, beside one another: what Envoy Gateway's translator gives."""
    top = folder("gateway") / "internal/xds/translator/testdata/out"
    for first in sorted(top.glob("*xds-ir/*.listeners.yaml")):
        stem = first.name.removesuffix(".listeners.yaml")
        held = {kind: _list(first.with_name(f"{stem}.{kind}.yaml")) for kind in _KINDS}
        yield Resources(f"gateway/{first.parent.name}/{stem}", **held)


def kuma() -> Iterator[Resources]:
    """What Kuma's policies give, a file a type; and whole sidecars as its control plane made them, whose addresses are
    blacked out. Nothing where there is no checkout.
    """
    top = checkout("kuma")
    if top is None:
        return
    for first in sorted(top.glob("pkg/plugins/policies/**/*.listeners.golden.yaml")):
        stem = first.name.removesuffix(".listeners.golden.yaml")
        found = {kind: _named(first.with_name(f"{stem}.{kind}.golden.yaml")) for kind in _KINDS}
        yield Resources(f"kuma/{first.relative_to(top / 'pkg/plugins/policies').parts[0]}/{stem}", **found)
    for path in sorted(top.glob("test/e2e_env/universal/envoyconfig/testdata/*/*/*.golden.json")):
        types = json.loads(_shown(path.read_text()))["xds"]
        found = {kind: list(_of_type(types, message).values()) for kind, message in _MESSAGES.items()}
        found["secrets"] = []  # they are blacked out, too
        yield Resources(f"kuma/{path.parent.name}/{path.name.removesuffix('.golden.json')}", **found)


def _named(path: Path) -> list[Json]:
    """Resources with their names beside them."""
    if not path.exists():
        return []
    found = yaml.safe_load(path.read_text()) or {}
    held = [item["resource"] for item in found.get("resources", ())]
    return [{key: value for key, value in item.items() if key != "@type"} for item in held]


def _shown(text: str) -> str:
    """With addresses where they were blacked out."""
    return re.sub(r"\b[A-Z]+_REDACTED\b", "127.0.0.1", text)


def _of_type(types: Json, message: str) -> Json:
    return next((found for url, found in types.items() if url.endswith(f".{message}")), {})


def _list(path: Path) -> list[Json]:
    """A list at the top of a file of YAML, read as Envoy reads it: that takes a mapping around it."""
    if not path.exists():
        return []
    text = "listeners:\n" + "".join(f"  {line}\n" for line in path.read_text().splitlines())
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as wrapped:
        wrapped.write(text)
        wrapped.flush()
        held: Any = read(wrapped.name, envoy=True).value["listeners"]
    return held or []


def _istio() -> Iterator[Resources]:
    """What Istio makes of authorization policies: filters, here before one route, or one cluster of TCP."""
    top = folder("istio") / "pilot/pkg/security/authz/builder/testdata"
    wraps: dict[str, Callable[[list[Json]], Json]] = {"http": _http_manager, "tcp": _tcp_proxy}
    for kind, wrap in wraps.items():
        for path in sorted(top.glob(f"{kind}/*-out.yaml")):
            filters = [found for found in yaml.safe_load_all(path.read_text()) if found]
            address = {"socket_address": {"address": "127.0.0.1", "port_value": 80}}
            chain = wrap(filters)
            cluster = {
                "name": "service",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "service",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            }
            listener = {"name": "listener", "address": address, "filter_chains": [chain]}
            yield Resources(f"istio/{kind}/{path.stem.removesuffix('-out')}", [listener], clusters=[cluster])


def _http_manager(filters: list[Json]) -> Json:
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [
            {"match": {"prefix": path}, "route": {"cluster": "service"}} for path in ("/allow", "/deny", "/")
        ],
    }
    manager = {
        "@type": _HCM,
        "stat_prefix": "http",
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {"name": "routes", "virtual_hosts": [host]},
    }
    return {"filters": [{"name": "http", "typed_config": manager}]}


def _tcp_proxy(filters: list[Json]) -> Json:
    proxy = {"@type": _TCP, "stat_prefix": "tcp", "cluster": "service"}
    return {"filters": [*filters, {"name": "tcp", "typed_config": proxy}]}
