"""What the measurements share, each part made when it is first asked for: the server, a sidecar, a mesh's configuration."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import trustme

from bench import envoy, routes, serving
from meshlib.testing import ControlPlane, build

ENDPOINTS = 50
ROUTES = 100
GRPC_ENDPOINTS = 100


class World:
    """Close it: processes end with it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    @cached_property
    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="meshlib-bench-")))

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """What accepts the server's certificate."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    @cached_property
    def _authority(self) -> trustme.CA:
        return trustme.CA()

    @cached_property
    def _ports(self) -> list[int]:
        certificate = self._folder / "server.pem"
        self._authority.issue_cert("127.0.0.1", routes.HOST).private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        return self._listening("bench.server", str(ENDPOINTS), str(certificate))

    def _listening(self, module: str, *arguments: str) -> list[int]:
        """The ports of a server that is started."""
        command = [sys.executable, "-m", module, *arguments]
        root = Path(__file__).resolve().parents[1]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )
        self._stack.callback(end, process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        ports: list[int] = json.loads(line)
        return ports

    @property
    def ports(self) -> list[int]:
        return self._ports[:ENDPOINTS]

    @property
    def addresses(self) -> list[str]:
        """The server's; whoever calls one calls the first."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    @property
    def tls_addresses(self) -> list[str]:
        """The same over TLS."""
        return [f"127.0.0.1:{port}" for port in self._ports[ENDPOINTS:]]

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """What is asked for: of all the routes, from the first to the last."""
        return routes.paths(ROUTES)

    @property
    def authority_pem(self) -> bytes:
        """The certificate of who signed the servers'."""
        return self._authority.cert_pem.bytes()

    @cached_property
    def _grpc_ports(self) -> list[int]:
        issued = self._authority.issue_cert("127.0.0.1", routes.HOST)
        certificate, key = self._folder / "grpc.pem", self._folder / "grpc.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return self._listening("bench.grpc_server", str(GRPC_ENDPOINTS), str(certificate), str(key))

    @property
    def grpc_addresses(self) -> list[str]:
        """Of one gRPC server, which listens on all; whoever calls one calls the first."""
        return [f"127.0.0.1:{port}" for port in self._grpc_ports[:GRPC_ENDPOINTS]]

    @property
    def grpc_tls_address(self) -> str:
        """The same over TLS."""
        return f"127.0.0.1:{self._grpc_ports[GRPC_ENDPOINTS]}"

    @cached_property
    def _grpc_plane(self) -> ControlPlane:
        """Knows the gRPC server's first address."""
        plane = ControlPlane(
            build.api_listener(routes.HOST, "routes"),
            build.route_config(
                "routes", build.virtual_host("all", build.route(cluster="one"), domains=[routes.HOST])
            ),
            build.cluster("one"),
            build.endpoints("one", self.grpc_addresses[0]),
        )
        return self._stack.enter_context(plane)

    @property
    def grpc_bootstrap(self) -> str:
        return json.dumps(self._grpc_plane.bootstrap())

    @cached_property
    def grpc_mesh(self) -> Any:
        """A Mesh of one gRPC endpoint."""
        return self.made({"services": {routes.HOST: {"endpoints": self.grpc_addresses[:1]}}})

    @cached_property
    def grpc_tls_mesh(self) -> Any:
        return self.made({"services": {routes.HOST: {"endpoints": [self.grpc_tls_address]}}})

    @cached_property
    def grpc_mtls_mesh(self) -> Any:
        """TLS is the mesh's: its certificate is shown, and the server's must have its name."""
        mine = self._authority.issue_cert("caller")
        files = {
            "ca": self.authority_pem,
            "cert": b"".join(blob.bytes() for blob in mine.cert_chain_pems),
            "key": mine.private_key_pem.bytes(),
        }
        for name, pem in files.items():
            (self._folder / f"mesh-{name}.pem").write_bytes(pem)
        tls = {name: str(self._folder / f"mesh-{name}.pem") for name in files} | {"sans": [routes.HOST]}
        return self.made({"services": {routes.HOST: {"endpoints": [self.grpc_tls_address], "tls": tls}}})

    @cached_property
    def grpc_xds_mesh(self) -> Any:
        mesh = self.made({"xds": {"server": self._grpc_plane.address}})
        mesh.wait_ready(routes.HOST)
        return mesh

    @cached_property
    def sidecar(self) -> str:
        """The address of an Envoy with the same routes, endpoints and policies."""
        process, address = envoy.start(self._folder, self.addresses, ROUTES)
        self._stack.callback(end, process)
        return address

    @cached_property
    def sites(self) -> serving.Sites:
        """Web applications under gunicorn."""
        sites = serving.Sites()
        self._stack.callback(sites.close)
        return sites

    @cached_property
    def mesh(self) -> Any:
        """A Mesh with all policies on, shared by every meshlib peer."""
        return self._mesh(self.addresses)

    @cached_property
    def tls_mesh(self) -> Any:
        """The same, whose endpoints speak TLS."""
        return self._mesh(self.tls_addresses)

    def _mesh(self, addresses: list[str]) -> Any:
        return self.made({"services": {routes.HOST: routes.service(addresses, ROUTES)}})

    def made(self, config: dict[str, Any]) -> Any:
        """A Mesh of a configuration."""
        import meshlib

        mesh = meshlib.Mesh(config)
        self._stack.callback(mesh.close)
        return mesh

    def close(self) -> None:
        self._stack.close()


def end(process: subprocess.Popen[Any]) -> None:
    """End a child in order, or else."""
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
