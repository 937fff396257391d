"""Envoy Gateway as a program, and what it is to serve: Gateways and routes as files, without Kubernetes.

It listens on all addresses, at ports of its own that nothing can change. So it runs where there is loopback alone: this module is
for programs in a network namespace.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import meshlib
from tests.interop.support.calling import PATIENCE, calling
from tests.interop.support.meshes import READY, xds
from tests.interop.support.pki import Pki
from tests.interop.support.upstreams import Upstream
from tests.support.watch import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SERVER = "127.0.0.1:18000"
PORT = 8888
#: A Gateway without a namespace is in Envoy Gateway's own; a node's cluster says which Gateway it is of.
NODE = {"id": "interop", "cluster": "envoy-gateway-system/eg"}
URL = f"http://www.example.com:{PORT}/"
_API = "gateway.envoyproxy.io/v1alpha1"


class Gateway:
    """The program, which may run several times one after another. ``routes``: hosts, each with its upstreams."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = folder / "resources"
        self._resources.mkdir()
        self.pki = Pki(folder)
        certificates = folder / "config" / "certs" / "envoy-gateway"
        certificates.mkdir(parents=True)
        for name, ours in (("tls.crt", "127.0.0.1-cert"), ("tls.key", "127.0.0.1-key"), ("ca.crt", "ca")):
            shutil.copy(self.pki.path(ours), certificates / name)
        host = {f"{name}Home": str(folder / name) for name in ("config", "data", "state")}
        host["runtimeDir"] = str(folder / "run")
        custom = {
            "resource": {"type": "File", "file": {"paths": [str(self._resources)]}},
            "infrastructure": {"type": "Host", "host": host},
        }
        made = {
            "apiVersion": _API,
            "kind": "EnvoyGateway",
            "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
            "provider": {"type": "Custom", "custom": custom},
            "extensionApis": {"enableBackend": True},
        }
        (folder / "gateway.yaml").write_text(json.dumps(made))

    def put(self, routes: Mapping[str, list[Upstream]]) -> None:
        """Serves these from now on."""
        objects = list(_objects(routes))
        new = self._folder / "new.yaml"
        new.write_text("\n---\n".join(json.dumps(item) for item in objects))
        new.replace(self._resources / "all.yaml")

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command = [str(self._binary), "server", "--config-path", str(self._folder / "gateway.yaml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._process = None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()


def _objects(routes: Mapping[str, list[Upstream]]) -> Any:
    networking = "gateway.networking.k8s.io/v1"
    controller = {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}
    yield _object(networking, "GatewayClass", "eg", controller)
    listener = {"name": "http", "protocol": "HTTP", "port": PORT}
    yield _object(networking, "Gateway", "eg", {"gatewayClassName": "eg", "listeners": [listener]})
    for host, upstreams in routes.items():
        name = host.replace(".", "-")
        endpoints = [{"ip": {"address": one.host, "port": one.port}} for one in upstreams]
        yield _object(_API, "Backend", name, {"endpoints": endpoints})
        to = [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}]
        rule = {"backendRefs": to, "matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}
        spec = {"parentRefs": [{"name": "eg"}], "hostnames": [host], "rules": [rule]}
        yield _object(networking, "HTTPRoute", name, spec)


def _object(version: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def scenario(binary: Path, folder: Path, protocol: str) -> dict[str, Any]:
    """Calls to one host while its endpoints change, another host comes, and the program is killed and comes back: what came of
    them.
    """
    gateway = Gateway(binary, folder)
    a, b = Upstream("a"), Upstream("b")
    gateway.put({"www.example.com": [a]})
    gateway.start()
    tls = gateway.pki.client(mutual=True)
    settings = {"server": SERVER, "view": "sidecar", "protocol": protocol, "tls": tls}
    try:
        with meshlib.Mesh({"node": NODE, "xds": settings}) as mesh, meshlib.Client(mesh=mesh) as client:
            until(mesh, lambda: xds(mesh).state == "ready", 2 * PATIENCE)
            mesh.wait_ready(f"www.example.com:{PORT}", timeout=READY)
            with calling(lambda: client.get(URL)) as calls:
                calls.only("a")
                gateway.put({"www.example.com": [b]})
                calls.only("b")
                gateway.put({"www.example.com": [b], "other.example.com": [a]})
                until(mesh, lambda: len(mesh.status().clusters) == 2, PATIENCE)
                other = client.get(f"http://other.example.com:{PORT}/").json()["name"]
                gateway.kill()
                until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
                calls.more(100)
                gateway.put({"www.example.com": [a]})
                gateway.start()
                calls.only("a")
            status = xds(mesh)
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n{gateway.log[-3000:]}") from problem
    finally:
        gateway.kill()
        for one in (a, b):
            one.close()
    return {
        "failures": calls.failures,
        "other": other,
        "resources": dict(status.resources),
        "rejected": [str(one) for one in status.rejected],
    }
