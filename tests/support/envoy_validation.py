"""What a real Envoy, as a client, accepts of servers behind TLS."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

__all__ = ["accepted_by_envoy"]


def accepted_by_envoy(
    folder: Path, cases: Sequence[tuple[str, dict[str, Any]]], more: Sequence[dict[str, Any]] = ()
) -> list[bool]:
    """Whether it calls each server by its ``CertificateValidationContext``. ``folder`` takes its files; ``more``: further fields of each
    one's ``UpstreamTlsContext``, ``tls_params`` among them.
    """
    ports = Ports(1)
    found = []
    with EnvoyProcess(_bootstrap(ports.numbers[0], cases, more), folder) as envoy:
        envoy.wait_for_listeners(1)
        with closing(http.client.HTTPConnection("127.0.0.1", ports.numbers[0], timeout=20)) as connection:
            for index in range(len(cases)):
                connection.request("GET", f"/{index}")
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 503)
                found.append(answer.status == 200)
    ports.close()
    return found


def _bootstrap(
    port: int, cases: Sequence[tuple[str, dict[str, Any]]], more: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions."
    clusters, routes = [], []
    for index, (server, validation) in enumerate(cases):
        host, _, number = server.rpartition(":")
        address = {"socket_address": {"address": host, "port_value": int(number)}}
        tls = {
            "@type": f"{kind}transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": validation},
        }
        further = dict(more[index]) if more else {}
        if "tls_params" in further:
            tls["common_tls_context"]["tls_params"] = further.pop("tls_params")
        tls |= further
        clusters.append(
            {
                "name": str(index),
                "type": "STATIC",
                "transport_socket": {"name": "tls", "typed_config": tls},
                "load_assignment": {
                    "cluster_name": str(index),
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
            }
        )
        routes.append({"match": {"path": f"/{index}"}, "route": {"cluster": str(index)}})
    manager = {
        "@type": f"{kind}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kind}filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "l",
        "enable_reuse_port": True,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    return {"admin": admin, "static_resources": {"listeners": [listener], "clusters": clusters}}
