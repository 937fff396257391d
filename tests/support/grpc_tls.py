"""A cluster whose endpoints demand TLS, and servers of grpc's that have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from meshlib.testing import ControlPlane, build
from tests.support.issued import Authority, Issued

__all__ = ["CLIENT", "SERVER", "Mesh", "socket_of", "world"]

CLIENT, SERVER = "spiffe://mesh/ns/shop/sa/web", "spiffe://mesh/ns/shop/sa/stock"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def socket_of(
    root: bytes = b"",
    *sans: tuple[str, str],
    shown: Issued | None = None,
    sni: str = "",
    common: dict[str, Any] | None = None,
    validation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The transport socket of a cluster. ``sans``: kind and name; ``shown``: what this side shows."""
    made: dict[str, Any] = dict(validation or {})
    if root:
        made["trusted_ca"] = {"inline_string": root.decode()}
    if sans:
        made["match_typed_subject_alt_names"] = [
            {"san_type": kind, "matcher": {"exact": name}} for kind, name in sans
        ]
    context: dict[str, Any] = {"validation_context": made} if made else {}
    if shown is not None:
        pair = {
            "certificate_chain": {"inline_string": shown.chain.decode()},
            "private_key": {"inline_string": shown.key.decode()},
        }
        context["tls_certificates"] = [pair]
    typed = {"common_tls_context": context | (common or {}), **({"sni": sni} if sni else {})}
    return {"name": "tls", "typed_config": build.any_of(_TLS, typed)}


class Mesh:
    """A control plane that says where ``stock`` is, and what connections to it use."""

    def __init__(self, plane: ControlPlane, authority: Authority) -> None:
        self.plane = plane
        self.authority = authority
        self.shown = authority.issue(CLIENT)

    @property
    def config(self) -> dict[str, Any]:
        return {"xds": {"server": self.plane.address}}

    def server(self, *names: str, demands: bool = True) -> grpc.ServerCredentials:
        """Of a server, which ``demands`` a certificate of its clients."""
        held = self.authority.issue(*(names or (SERVER,)))
        if not demands:
            return grpc.ssl_server_credentials([held.pair])
        return grpc.ssl_server_credentials([held.pair], self.authority.root, require_client_auth=True)

    def say(self, *addresses: str, socket: dict[str, Any] | None = None, **cluster: Any) -> None:
        """``socket``: None: as servers by ``server`` want it."""
        if socket is None:
            socket = socket_of(self.authority.root, ("URI", SERVER), shown=self.shown)
        routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
        options = {"explicit_http_config": {"http2_protocol_options": {}}}
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster.setdefault("typed_extension_protocol_options", {kind: build.any_of(kind, options)})
        sockets = {"transport_socket": socket} if socket else {}
        self.plane.set(
            build.api_listener("stock", routes),
            build.cluster("c", list(addresses), **sockets, **cluster),
        )


@contextmanager
def world() -> Iterator[Mesh]:
    with ControlPlane() as plane:
        yield Mesh(plane, Authority())
