"""Servers that demand certificates, right ones and wrong ones, and meshes that are told of them in each way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

import meshlib
from meshlib.testing import ControlPlane, GrpcUpstream, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.envoy_dir import EnvoyDir
from tests.support.ports import Ports
from tests.support.tls_server import TlsServer
from tests.trust.material import (
    CA,
    FAULTS,
    MATERIALS,
    TLS,
    Fault,
    Json,
    Material,
    Place,
    certificates,
    inline,
    server_of,
)

__all__ = ["HTTP2", "Cell", "World", "cells", "listening"]

#: What is wrong with a server.
_SERVERS = sorted({fault.server for fault in FAULTS})
_PROTOCOL = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP2 = {
    "typed_extension_protocol_options": {
        _PROTOCOL: build.any_of(_PROTOCOL, {"explicit_http_config": {"http2_protocol_options": {}}})
    }
}
#: Whose identity each mesh of that kind has.
_IDENTITIES = ("mine", "mine, of another root", "mine, expired")


@dataclass(frozen=True)
class Cell:
    """``peer``: ``"python"``, ``"grpcio"`` or ``"envoy"``."""

    material: Material
    fault: Fault
    peer: str

    @property
    def name(self) -> str:
        return f"{self.material.name}-{self.fault.name}-{self.peer}"

    @property
    def shown(self) -> str | None:
        """The certificate that we show."""
        return (
            None
            if self.fault.shown is None
            else f"mine{self.fault.shown}"
            if self.fault.shown
            else self.material.kind
        )

    @property
    def words(self) -> tuple[str, ...]:
        """An identity that has expired is shown to nobody."""
        if self.material.mesh == "identity" and self.fault.name == "expired-client":
            return ("has expired",)
        return self.fault.words


def cells(*peers: str) -> list[Cell]:
    """Envoy's server is called with one material."""
    return [
        Cell(material, fault, peer)
        for peer in peers
        for material in (MATERIALS if peer != "envoy" else MATERIALS[:1])
        for fault in FAULTS
        # What is wrong with what we show is told by which certificate it is, and not by how that one was made.
        if not fault.shown or material.kind == "mine"
    ]


class World:
    """Entered, it serves; ``mesh(cell)`` is one that is told of the cell's server, which ``count(cell)`` says the requests of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = Place(folder)
        self._stack = ExitStack()
        self._meshes: dict[str, meshlib.Mesh] = {}
        self._peers: dict[tuple[str, str], tuple[str, Callable[[], int]]] = {}

    def __enter__(self) -> Self:
        with self._stack:
            self._serve_python()
            self._serve_grpc()
            self._serve_envoy()
            self._tell()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        for mesh in self._meshes.values():
            mesh.close()
        self._stack.close()

    def mesh(self, cell: Cell) -> meshlib.Mesh:
        return self._meshes[self._mesh_of(cell)]

    def count(self, cell: Cell) -> int:
        """Requests that its server has had."""
        return self._peers[cell.peer, cell.fault.server][1]()

    # --- servers ----------------------------------------------------------------------------------------------------------------

    def _serve_python(self) -> None:
        for name in _SERVERS:
            server = self._stack.enter_context(TlsServer(server_of(name)))
            self._peers["python", name] = (server.address, lambda server=server: server.requests)

    def _serve_grpc(self) -> None:
        for name in _SERVERS:
            if name == "too old":  # grpcio's servers speak whatever there is
                self._peers["grpcio", name] = self._peers["python", name]
                continue
            held = certificates()[name]
            demanding = grpc.ssl_server_credentials(
                [(held.key_pem, held.chain_pem)], CA.pem, require_client_auth=True
            )
            server = self._stack.enter_context(GrpcUpstream(name or "right", credentials=demanding))
            self._peers["grpcio", name] = (server.address, lambda server=server: server.requests_total)

    def _serve_envoy(self) -> None:
        ports = Ports(len(_SERVERS))
        self._stack.callback(ports.close)
        behind = self._stack.enter_context(GrpcUpstream("behind"))
        bootstrap = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": [
                    _listener(name, port) for name, port in zip(_SERVERS, ports.numbers, strict=True)
                ],
                "clusters": [build.without_type(build.cluster("behind", [behind.address], **HTTP2))],
            },
        }
        envoy = self._stack.enter_context(EnvoyProcess(bootstrap, self._folder))
        envoy.wait_for_listeners(len(_SERVERS))
        for name, port in zip(_SERVERS, ports.numbers, strict=True):
            stat = f"http.{_stat(name)}.downstream_rq_total"
            self._peers["envoy", name] = (
                f"127.0.0.1:{port}",
                lambda stat=stat: envoy.stats(f"^{stat}$").get(stat, 0),
            )

    # --- meshes -----------------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        resources = {"ads": [], "files": []}  # type: ignore[var-annotated]
        for cell in (*cells("python", "grpcio", "envoy"),):
            resources["files" if cell.material.mesh == "files" else "ads"].append(self._cluster(cell))
        of_file = {name for name in self._place.secrets if name.startswith("sds-file-")}
        plane = self._stack.enter_context(ControlPlane())
        plane.set(
            _own(resources["ads"]),
            *resources["ads"],
            *(each for name, each in self._place.secrets.items() if name not in of_file),
        )
        self._meshes["ads"] = meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}})
        files = EnvoyDir(self._folder)
        files.put("sds", *(self._place.secrets[name] for name in sorted(of_file)))
        files.put("cds", *resources["files"])
        files.put("lds", _own(resources["files"]))
        told = {"protocol": "files", "path": str(self._folder), "view": "sidecar"}
        self._meshes["files"] = meshlib.Mesh({"xds": told})
        for name in _IDENTITIES:
            self._meshes[f"identity {name}"] = meshlib.Mesh(self._of_identity(name, plane.address))

    def _of_identity(self, name: str, server: str) -> Json:
        held, where = certificates()[name], self._folder / name
        where.mkdir()
        held.write(where)
        (where / "ca.pem").write_bytes(CA.pem)
        files = {each: str(where / f"{each}.pem") for each in ("cert", "key", "ca")}
        watcher = {
            "certificate_file": files["cert"],
            "private_key_file": files["key"],
            "ca_certificate_file": files["ca"],
        }
        bootstrap = {
            "xds_servers": [{"server_uri": server, "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": "n"},
            "certificate_providers": {"ours": {"plugin_name": "file_watcher", "config": watcher}},
        }
        return {"xds": {"bootstrap_config": json.dumps(bootstrap), "view": "sidecar"}, "identity": files}

    def _mesh_of(self, cell: Cell) -> str:
        if cell.material.mesh != "identity":
            return cell.material.mesh
        return f"identity {cell.shown or 'mine'}"

    def _cluster(self, cell: Cell) -> Json:
        shown = None if cell.shown is None else certificates()[cell.shown]
        common = cell.material.tell(self._place, cell.name, shown, dict(cell.fault.demands))
        if cell.fault.params:
            common["tls_params"] = cell.fault.params
        socket = {
            "name": "tls",
            "typed_config": build.any_of(TLS, {"sni": "reviews.shop", "common_tls_context": common}),
        }
        address, _ = self._peers[cell.peer, cell.fault.server]
        more = HTTP2 if cell.peer == "grpcio" else {}
        return build.cluster(cell.name, [address], transport_socket=socket, **more)


def _own(clusters: list[Json]) -> Json:
    """A host for each of these."""
    return listening({each["name"]: each["name"] for each in clusters})


def listening(clusters: dict[str, str]) -> Json:
    """A listener that takes calls to these hosts to these clusters."""
    hosts = [
        build.virtual_host(host, build.route("/", cluster=cluster), domains=[host, f"{host}:80"])
        for host, cluster in clusters.items()
    ]
    return build.listener("outbound", build.route_config("r", *hosts), address="0.0.0.0:80")


def _stat(name: str) -> str:
    return (name or "right").replace(" ", "_")


def _listener(name: str, port: int) -> Json:
    """It demands a certificate of the mesh's CA, answers HTTP itself and hands gRPC on."""
    held = certificates().get(name, certificates()[""])
    common: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [
            {"certificate_chain": inline(held.chain_pem), "private_key": inline(held.key_pem)}
        ],
        "validation_context": {"trusted_ca": inline(CA.pem)},
    }
    if name == "too old":
        common["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_2"}
    demanding = {
        "@type": f"type.googleapis.com/{TLS.replace('Upstream', 'Downstream')}",
        "require_client_certificate": True,
        "common_tls_context": common,
    }
    body = {"inline_string": "served"}
    routes = [
        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "behind"}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": body}},
    ]
    manager = {
        "@type": f"type.googleapis.com/{build.HTTP_CONNECTION_MANAGER}",
        "stat_prefix": _stat(name),
        "http_filters": [dict(build.ROUTER)],
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
    }
    return {
        "name": _stat(name),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": demanding},
                "filters": [{"name": "hcm", "typed_config": manager}],
            }
        ],
    }
