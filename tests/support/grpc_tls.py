"""A cluster whose endpoints demand TLS, and servers of grpc's that have it."""

from __future__ import annotations

import queue
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from meshlib.testing import ControlPlane, build
from tests.support.certificates import Authority, Issued

__all__ = ["CLIENT", "SERVER", "Listener", "Mesh", "Tunnels", "Witness", "socket_of", "tunnels", "world"]

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
            "certificate_chain": {"inline_string": shown.chain_pem.decode()},
            "private_key": {"inline_string": shown.key_pem.decode()},
        }
        context["tls_certificates"] = [pair]
    typed = {"common_tls_context": context | (common or {}), **({"sni": sni} if sni else {})}
    return {"name": "tls", "typed_config": build.any_of(_TLS, typed)}


class Mesh:
    """A control plane that says where ``stock`` is, and what connections to it use, as to a sidecar: a client of gRPC's own takes
    secrets of instances only.
    """

    def __init__(self, plane: ControlPlane, authority: Authority) -> None:
        self.plane = plane
        self.authority = authority
        self.shown = authority.issue(CLIENT)

    @property
    def config(self) -> dict[str, Any]:
        return {"xds": {"server": self.plane.address, "view": "sidecar"}}

    def server(self, *names: str, demands: bool = True) -> grpc.ServerCredentials:
        """Of a server, which ``demands`` a certificate of its clients."""
        held = self.authority.issue(*(names or (SERVER,)))
        if not demands:
            return grpc.ssl_server_credentials([(held.key_pem, held.chain_pem)])
        return grpc.ssl_server_credentials(
            [(held.key_pem, held.chain_pem)], self.authority.pem, require_client_auth=True
        )

    def say(self, *addresses: Any, socket: dict[str, Any] | None = None, **cluster: Any) -> None:
        """``socket``: None: as servers by ``server`` want it."""
        if socket is None:
            socket = socket_of(self.authority.pem, ("URI", SERVER), shown=self.shown)
        routes = build.route_config(
            "r", build.virtual_host("v", build.route("/", cluster="c"), domains=["stock", "stock:443"])
        )
        options = {"explicit_http_config": {"http2_protocol_options": {}}}
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster.setdefault("typed_extension_protocol_options", {kind: build.any_of(kind, options)})
        cluster.setdefault("connect_timeout", "20s")
        sockets = {"transport_socket": socket} if socket else {}
        self.plane.set(
            build.listener("l", routes, address="0.0.0.0:443"),
            build.cluster("c", list(addresses), **sockets, **cluster),
        )


@contextmanager
def world() -> Iterator[Mesh]:
    with ControlPlane() as plane:
        yield Mesh(plane, Authority())


class Witness(grpc.GenericRpcHandler):
    """A server that demands a certificate, and answers each message with the one that it was shown."""

    def __init__(self, credentials: grpc.ServerCredentials) -> None:
        self._pool = ThreadPoolExecutor(256)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if handler_call_details.method.endswith("StreamStream"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    def _unary(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return _shown(context)

    def _stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in messages:
            yield _shown(context)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


def _shown(context: grpc.ServicerContext) -> bytes:
    pem: bytes = context.auth_context()["x509_pem_cert"][0]
    return pem


@dataclass(frozen=True)
class Tunnels:
    """What this process has of them: the paths of sockets that are listened at, and threads."""

    sockets: frozenset[str]
    threads: tuple[threading.Thread, ...]

    def join(self) -> None:
        """Wait for the end of the threads."""
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


def tunnels() -> Tunnels:
    """Those of this process, by what the system says of its descriptors."""
    inodes = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(entry.readlink()))
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    paths = {line[7] for line in lines if len(line) > 7 and f"socket:[{line[6]}]" in inodes}
    named = (thread for thread in threading.enumerate() if thread.name in {"meshlib-tunnel", "meshlib-dial"})
    return Tunnels(frozenset(path for path in paths if "/meshlib-grpc-" in path), tuple(named))


class Listener:
    """Python's TLS server on a port of its own, which never answers: it keeps what it was asked for, and every byte that came after
    the handshake. ``protocols``: of ALPN; ``shook``: a word for each handshake that is done; ``ends``: how each connection ended.
    """

    def __init__(self, held: Issued, roots: bytes = b"", protocols: tuple[str, ...] = ("h2",)) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(list(protocols))
        self._context.sni_callback = self._asked
        if roots:
            self._context.load_verify_locations(cadata=roots.decode())
            self._context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.NamedTemporaryFile() as file:
            file.write(held.chain_pem + held.key_pem)
            file.flush()
            self._context.load_cert_chain(file.name)
        self.names: list[str | None] = []
        self.received = b""
        self.ends: queue.Queue[str] = queue.Queue()
        self.shook: queue.Queue[None] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve)]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _asked(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.names.append(name)

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._hear, args=(accepted,)))
            self._threads[-1].start()

    def _hear(self, accepted: socket.socket) -> None:
        try:
            accepted.settimeout(30)
            with self._context.wrap_socket(accepted, server_side=True) as connection:
                self.shook.put(None)
                while data := connection.recv(65_536):
                    self.received += data
        except OSError as error:
            self.ends.put(str(error))
        else:
            self.ends.put("closed")
