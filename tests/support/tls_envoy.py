"""A real Envoy on loopback that demands certificates of those who call it, with its own and the roots from wherever a test has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from meshlib.testing import GrpcUpstream
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.ports import Ports

__all__ = ["ANSWER", "TlsEnvoy", "agent_secret", "file_secret", "inline", "write_secret"]

ANSWER = "served"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_AGENT = "agent"


class TlsEnvoy:
    """It answers HTTP with `ANSWER` and who called (`x-peer`), and hands gRPC on to ``grpc``. ``certificate`` and ``roots``: configurations of
    secrets; ``names``: URIs of those who may call; ``agent``: the unix socket of who serves secrets.
    """

    def __init__(
        self,
        folder: Path,
        certificate: dict[str, Any],
        roots: dict[str, Any],
        *names: str,
        grpc: GrpcUpstream | None = None,
        agent: str = "",
    ) -> None:
        self._ports = Ports(1)
        port = self._ports.numbers[0]
        self.address = f"127.0.0.1:{port}"
        clusters = (
            [_cluster("grpc", {"socket_address": {"address": "127.0.0.1", "port_value": grpc.port}})]
            if grpc
            else []
        )
        if agent:
            clusters.append(_cluster(_AGENT, {"pipe": {"path": agent}}))
        listener = _listener(port, certificate, roots, names, with_grpc=grpc is not None)
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        self._envoy = EnvoyProcess(
            {
                "node": {"id": "server", "cluster": "server"},
                "static_resources": {"listeners": [listener], "clusters": clusters},
                "admin": admin,
            },
            folder,
        )

    def __enter__(self) -> Self:
        self._envoy.__enter__()
        self._envoy.wait_for_listeners(1)
        assert asked(self._has_secrets, 30), self._envoy.log()[-4000:]
        return self

    def __exit__(self, *exc: object) -> None:
        self._envoy.__exit__(*exc)
        self._ports.close()

    def _has_secrets(self) -> bool:
        """Without both a connection is reset; who serves them may not have them when it is first asked."""
        updates = self._envoy.stats("sds")
        return sum(key.endswith(".update_success") and count > 0 for key, count in updates.items()) >= 2

    def tls(self) -> Counter[str]:
        """What its listener has counted of TLS."""
        counted = self._envoy.stats("listener")
        return Counter(
            {key.rpartition(".ssl.")[2]: value for key, value in counted.items() if ".ssl." in key}
        )

    def requests(self) -> int:
        """How many have arrived."""
        return self._envoy.stats("http.in").get("http.in.downstream_rq_total", 0)


def inline(pem: bytes) -> dict[str, str]:
    return {"inline_string": pem.decode()}


def file_secret(name: str, folder: Path) -> dict[str, Any]:
    """One that `write_secret` writes, and may write again."""
    source = {"path": str(folder / f"{name}.json"), "watched_directory": {"path": str(folder)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def agent_secret(name: str) -> dict[str, Any]:
    """One that the agent serves."""
    service = {"envoy_grpc": {"cluster_name": _AGENT}}
    source = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    return {"name": name, "sds_config": {"api_config_source": source, "resource_api_version": "V3"}}


def write_secret(name: str, secret: dict[str, Any], folder: Path) -> None:
    """At once, as whoever renews certificates should."""
    resource = {"@type": f"{_TLS}Secret", "name": name, **secret}
    unfinished = folder / f"{name}.new"
    unfinished.write_text(json.dumps({"resources": [resource]}))
    unfinished.replace(folder / f"{name}.json")


def _listener(
    port: int, certificate: dict[str, Any], roots: dict[str, Any], names: Sequence[str], *, with_grpc: bool
) -> dict[str, Any]:
    matchers = [{"san_type": "URI", "matcher": {"exact": name}} for name in names]
    validation = {
        "default_validation_context": {"match_typed_subject_alt_names": matchers},
        "validation_context_sds_secret_config": roots,
    }
    common = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [certificate],
        "combined_validation_context": validation,
    }
    socket = {
        "@type": f"{_TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": common,
    }
    peer = {"header": {"key": "x-peer", "value": "%DOWNSTREAM_PEER_URI_SAN%"}}
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
        "response_headers_to_add": [peer],
    }
    rpcs = {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "grpc", "timeout": "0s"}}
    routes = [rpcs, answer] if with_grpc else [answer]
    manager = {
        "@type": _HCM,
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    chain = {
        "transport_socket": {"name": "tls", "typed_config": socket},
        "filters": [{"name": "hcm", "typed_config": manager}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "in", "address": address, "filter_chains": [chain]}


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": {
            _HTTP.rpartition("/")[2]: {"@type": _HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
        },
    }
