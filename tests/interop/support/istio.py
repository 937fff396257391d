"""Objects of Istio and of Kubernetes, as mappings with the field names of their YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.interop.support.upstreams import Upstream

PORT = 9080
NODE_ID = "sidecar~10.1.1.1~app.default~default.svc.cluster.local"
METADATA = {
    "NAMESPACE": "default",
    "INSTANCE_IPS": "10.1.1.1",
    "CLUSTER_ID": "Kubernetes",
    "ISTIO_VERSION": "1.30.0",
}


def fqdn(name: str) -> str:
    return f"{name}.default.svc.cluster.local"


def service_entry(name: str, *upstreams: Upstream, port: int = PORT) -> dict[str, Any]:
    """A service without Kubernetes behind it. An upstream's name is its label ``version``."""
    endpoints = [
        {"address": upstream.host, "ports": {"http": upstream.port}, "labels": {"version": upstream.name}}
        for upstream in upstreams
    ]
    spec = {
        "hosts": [fqdn(name)],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
        "endpoints": endpoints,
    }
    return _istio("ServiceEntry", name, spec)


def destination_rule(name: str, *subsets: str) -> dict[str, Any]:
    """A subset for each version, and round robin."""
    spec = {
        "host": fqdn(name),
        "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}},
        "subsets": [{"name": subset, "labels": {"version": subset}} for subset in subsets],
    }
    return _istio("DestinationRule", name, spec)


def virtual_service(name: str, *http: dict[str, Any]) -> dict[str, Any]:
    return _istio("VirtualService", name, {"hosts": [fqdn(name)], "http": list(http)})


def to(name: str, **weights: int) -> list[dict[str, Any]]:
    """The destinations of a route: a subset and its weight each; without any, the whole service."""
    if not weights:
        return [{"destination": {"host": fqdn(name)}}]
    return [
        {"destination": {"host": fqdn(name), "subset": subset}, "weight": weight}
        for subset, weight in weights.items()
    ]


def service(name: str, cluster_ip: str) -> dict[str, Any]:
    """A Service of Kubernetes, without a selector: its endpoints are those of its EndpointSlices."""
    ports = [{"name": "http", "port": PORT, "protocol": "TCP"}]
    return _object("v1", "Service", name, {}, {"spec": {"clusterIP": cluster_ip, "ports": ports}})


def endpoint_slice(name: str, upstream: Upstream) -> dict[str, Any]:
    """A slice of a Service, for this upstream alone: all endpoints of a slice have the same port."""
    content = {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": upstream.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [upstream.host], "conditions": {"ready": True}}],
    }
    labels = {"kubernetes.io/service-name": name}
    return _object("discovery.k8s.io/v1", "EndpointSlice", f"{name}-{upstream.name}", labels, content)


def bootstrap(server: str, tls: Mapping[str, str]) -> dict[str, Any]:
    """As Istio's agent writes it for a gRPC application, without a proxy; in plain text, or with these files."""
    names = {"ca": "ca_certificate_file", "cert": "certificate_file", "key": "private_key_file"}
    files = {names[name]: path for name, path in tls.items()}
    credentials = {"type": "tls", "config": files} if tls else {"type": "insecure"}
    return {
        "xds_servers": [
            {"server_uri": server, "channel_creds": [credentials], "server_features": ["xds_v3"]}
        ],
        "node": {"id": NODE_ID, "metadata": {**METADATA, "GENERATOR": "grpc"}},
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
    }


def _istio(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _object("networking.istio.io/v1", kind, name, {}, {"spec": spec})


def _object(
    version: str, kind: str, name: str, labels: dict[str, str], rest: dict[str, Any]
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
