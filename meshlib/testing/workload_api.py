"""A stand-in for SPIFFE's Workload API, for tests: a real gRPC server on a unix socket (or loopback) that serves what it is told to.

with WorkloadApi(tmp_path / "api.sock") as api:
    mesh = meshlib.Mesh({"identity": {"provider": "spiffe", "socket": api.socket}})
    api.renew()                                            # every open stream gets new certificates
    api.deny()                                             # there is no identity for you (any more)
    api.federate(Authority("other.org"))                   # their bundle comes with ours
    api.send(b"no message")                                # bytes as they are
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshlib.sources.identity_wire import FETCH_X509_SVID, message
from meshlib.testing.authority import Authority, Pair
from meshlib.testing.grpc_server import GrpcServer
from meshlib.testing.journal import Journal

__all__ = ["WorkloadApi"]

T = TypeVar("T")

_SERVICE, _, _METHOD = FETCH_X509_SVID[1:].partition("/")


class _Status(NamedTuple):
    code: grpc.StatusCode
    details: str


_Answer: TypeAlias = bytes | _Status


class WorkloadApi(GrpcServer):
    """``path``: the socket; None: a port of loopback. ``ids``: whose identities are served, the first of them by default. ``lifetime``: seconds, of
    each certificate. Every method may be called from every thread, those that start and stop it from one at a time.
    """

    _thread_name = "workload-api"

    def __init__(
        self,
        path: Path | None = None,
        *ids: str,
        trust_domain: str = "example.org",
        lifetime: float = 3600.0,
    ) -> None:
        super().__init__("the Workload API", port=0, credentials=None, workers=16)
        self.authority = Authority(trust_domain)
        self.lifetime = lifetime
        self.opened = 0
        self._path = path
        self._ids = ids or (self.authority.uri("/app"),)
        self._journal = Journal()  # its condition guards all of the following
        self._federated: dict[str, Authority] = {}
        self._open: list[queue.SimpleQueue[_Answer | None]] = []
        self._answer: _Answer = b""
        self.renew()

    @property
    def socket(self) -> str:
        """As SPIFFE_ENDPOINT_SOCKET has it."""
        return f"tcp://{self.address}" if self._path is None else f"unix://{self._path}"

    @property
    def streams(self) -> int:
        """How many are open."""
        with self._journal.changed:
            return len(self._open)

    def wait_for(self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "a stream") -> T:
        """Waits until `predicate()` is true, and gives what it returned; as `ControlPlane.wait_for`."""
        return self._journal.wait(predicate, timeout, what)

    def renew(self, *ids: str) -> None:
        """New certificates; ``ids``: for these from now on."""
        with self._journal.changed:
            self._ids = ids or self._ids
            self.send(self.message().SerializeToString())

    def rotate(self, *, drop: bool = False) -> None:
        """Another root signs; the bundle has those before it, too, unless they are to be dropped."""
        with self._journal.changed:
            self.authority.rotate()
            if drop:
                self.authority.drop_old_roots()
            self.renew()

    def federate(self, *authorities: Authority) -> None:
        """The bundles of exactly these come with ours."""
        with self._journal.changed:
            self._federated = {each.trust_domain: each for each in authorities}
            self.renew()

    def deny(self, details: str = "no identity issued") -> None:
        """No identity is there: streams end so, until another order comes."""
        self._send(_Status(grpc.StatusCode.PERMISSION_DENIED, details))

    def drop(self) -> None:
        """Open streams end as in an outage, and new ones are welcome."""
        with self._journal.changed:
            for stream in self._open:
                stream.put(_Status(grpc.StatusCode.UNAVAILABLE, "dropped"))

    def send(self, data: bytes) -> None:
        """Bytes as they are, to every open stream and to each that is opened."""
        self._send(data)

    def _send(self, answer: _Answer) -> None:
        with self._journal.changed:
            self._answer = answer
            for stream in self._open:
                stream.put(answer)

    def message(self) -> Any:
        """An X509SVIDResponse with new certificates, to be changed and sent."""
        with self._journal.changed:
            made = message("X509SVIDResponse")()
            for each in self._ids:
                pair = self.authority.issue(each, lifetime=self.lifetime)
                made.svids.add(
                    spiffe_id=each,
                    x509_svid=_der(pair),
                    x509_svid_key=pair.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                    bundle=_bundle(self.authority),
                )
            for domain, authority in self._federated.items():
                made.federated_bundles[f"spiffe://{domain}"] = _bundle(authority)
            return made

    def _listen(self, server: grpc.Server) -> int:
        if self._path is None:
            return super()._listen(server)
        server.add_insecure_port(f"unix:{self._path}")
        return 0

    def _install(self, server: grpc.Server) -> None:
        handlers = {_METHOD: grpc.unary_stream_rpc_method_handler(self._fetch)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))

    def _fetch(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        message("X509SVIDRequest").FromString(raw)
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        answers: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
        with self._journal.changed:
            self.opened += 1
            self._open.append(answers)
            answers.put(self._answer)
            self._journal.changed.notify_all()
        context.add_callback(lambda: answers.put(None))
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, bytes):
                    yield answer
                else:
                    context.abort(answer.code, answer.details)
        finally:
            with self._journal.changed:
                self._open.remove(answers)
                self._journal.changed.notify_all()


def _der(pair: Pair) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in pair.chain)


def _bundle(authority: Authority) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in authority.roots)
