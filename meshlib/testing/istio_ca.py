"""A stand-in for Istio's CA, for tests: its public API over TLS on loopback, certificates as short-lived as a test wants them.

    with IstioCa(tmp_path, lifetime=10.0) as ca:
        mesh = meshlib.Mesh({"identity": {"provider": "istio", **ca.settings}})
        server = ca.issue("spiffe://cluster.local/ns/default/sa/reviews")
        ca.rotate()                                               # another root signs; those before it are still told
        ca.refuse(grpc.StatusCode.UNAVAILABLE, "later", times=3)
        ca.change(lambda chain: chain[:1])                        # each answer is changed so

It checks the token, and writes into the certificate who the token is of, as Istio's does: the request's own name is noted only.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshlib.sources.identity_wire import CREATE_CERTIFICATE, message
from meshlib.testing.authority import Authority, Pair
from meshlib.testing.grpc_server import GrpcServer
from meshlib.testing.journal import Journal

if TYPE_CHECKING:
    from meshlib.config.shapes import IdentityDict

__all__ = ["CertificateRequest", "IstioCa"]

T = TypeVar("T")

_SERVICE, _, _METHOD = CREATE_CERTIFICATE[1:].partition("/")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request as it arrived. ``uri``: of the CSR; ``public``: its key, as bytes; ``cluster``: the metadata ``clusterid``."""

    uri: str
    public: bytes
    validity: int
    cluster: str
    admitted: bool


class IstioCa(GrpcServer):
    """``folder`` gets the files of roots and token. ``lifetime``: seconds, of each certificate, whatever is asked for. ``account``:
    namespace and service account that the token is of. Every method may be called from every thread, those that start and stop it from one at a time.
    """

    _thread_name = "istio-ca"

    def __init__(
        self,
        folder: Path,
        *,
        lifetime: float = 3600.0,
        trust_domain: str = "cluster.local",
        account: tuple[str, str] = ("default", "app"),
        intermediate: bool = False,
        port: int = 0,
    ) -> None:
        self.authority = Authority(trust_domain, intermediate=intermediate)
        self.lifetime = lifetime
        self.uri = self.authority.uri("/ns/{}/sa/{}".format(*account))
        self.roots_file = folder / "root-cert.pem"
        self.token_file = folder / "istio-token"
        self._account = account
        self._journal = Journal()  # its condition guards all of the following
        self._requests: list[CertificateRequest] = []
        self._refusal: tuple[grpc.StatusCode, str] | None = None
        self._change: Callable[[list[str]], list[str]] | None = None
        self._times: int | None = None
        self.new_token()
        self._serving = self._server_certificate()
        self._write_roots()
        credentials = grpc.dynamic_ssl_server_credentials(self._serving, lambda: self._serving)
        super().__init__("Istio's CA", port=port, credentials=credentials, workers=16)

    @property
    def settings(self) -> IdentityDict:
        """`[identity]` of a mesh that asks it, but for the provider's name."""
        return {"server": self.address, "token": str(self.token_file), "ca": str(self.roots_file)}

    @property
    def requests(self) -> tuple[CertificateRequest, ...]:
        """Those so far."""
        with self._journal.changed:
            return tuple(self._requests)

    def wait_for(self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "a request") -> T:
        """Waits until `predicate()` is true, and gives what it returned; as `ControlPlane.wait_for`."""
        return self._journal.wait(predicate, timeout, what)

    @property
    def roots_pem(self) -> bytes:
        """Those that are told now."""
        with self._journal.changed:
            return self.authority.roots_pem

    def issue(self, *names: str) -> Pair:
        """A pair for a server of the mesh, with the CA's lifetime, by the root that signs now."""
        with self._journal.changed:
            return self.authority.issue(*names, lifetime=self.lifetime)

    def prepare(self) -> None:
        """Another root is told, by answers and the file, and signs after `activate`: who is told of it trusts it by then."""
        with self._journal.changed:
            self.authority.prepare()
            self._write_roots()

    def activate(self) -> None:
        """What was prepared signs from now on, the server's own certificate too."""
        with self._journal.changed:
            self.authority.activate()
            self._serving = self._server_certificate()

    def rotate(self, *, drop: bool = False) -> None:
        """Both at once. ``drop``: the roots before it are told no more."""
        self.prepare()
        self.activate()
        if drop:
            self.drop_old_roots()

    def drop_old_roots(self) -> None:
        """Only the newest root is told from now on."""
        with self._journal.changed:
            self.authority.drop_old_roots()
            self._write_roots()

    def new_token(self) -> None:
        """The file has another token, and the one before it is good no more."""
        with self._journal.changed:
            namespace, account = self._account
            claims = {"sub": f"system:serviceaccount:{namespace}:{account}", "aud": ["istio-ca"]}
            parts = (b'{"alg":"none"}', json.dumps(claims).encode(), secrets.token_bytes(16))
            self.token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
            self.token_file.write_text(self.token + "\n")

    def refuse(self, code: grpc.StatusCode, details: str = "", *, times: int | None = None) -> None:
        """Requests are refused so, the next ``times`` of them, or all until `obey`."""
        with self._journal.changed:
            self._refusal, self._change, self._times = (code, details), None, times

    def change(self, how: Callable[[list[str]], list[str]], *, times: int | None = None) -> None:
        """The chain of each answer is what `how` makes of the right one; ``times`` as for `refuse`."""
        with self._journal.changed:
            self._refusal, self._change, self._times = None, how, times

    def obey(self) -> None:
        """Orders are forgotten."""
        with self._journal.changed:
            self._refusal, self._change, self._times = None, None, None

    def _write_roots(self) -> None:
        unfinished = self.roots_file.with_suffix(".new")
        unfinished.write_bytes(self.authority.roots_pem)
        unfinished.replace(self.roots_file)

    def _server_certificate(self) -> grpc.ServerCertificateConfiguration:
        pair = self.authority.issue("127.0.0.1", "localhost", "istiod.istio-system.svc")
        return grpc.ssl_server_certificate_configuration([(pair.key_pem, pair.chain_pem)])

    def _install(self, server: grpc.Server) -> None:
        request, response = (
            message(f"istio.v1.auth.IstioCertificate{end}") for end in ("Request", "Response")
        )

        def create(raw: bytes, context: grpc.ServicerContext) -> bytes:
            chain = self._create(request.FromString(raw), context)
            return response(cert_chain=chain).SerializeToString()

        handlers = {_METHOD: grpc.unary_unary_rpc_method_handler(create)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))

    def _create(self, asked: Any, context: grpc.ServicerContext) -> list[str]:
        metadata = dict(context.invocation_metadata())
        with self._journal.changed:
            admitted = metadata.get("authorization") == f"Bearer {self.token}"
            csr = x509.load_pem_x509_csr(asked.csr.encode())
            self._requests.append(_noted(csr, asked, str(metadata.get("clusterid", "")), admitted))
            self._journal.changed.notify_all()
            refusal, change = self._ordered()
            if refusal is None and not admitted:
                refusal = grpc.StatusCode.UNAUTHENTICATED, "request authenticate failure"
            chain = self.authority.sign(csr.public_key(), self.uri, lifetime=self.lifetime)
            roots = self.authority.roots_pem.decode()
        if refusal is not None:
            context.abort(*refusal)
        answer = [each.public_bytes(Encoding.PEM).decode() for each in chain]
        return [*answer, roots] if change is None else change([*answer, roots])

    def _ordered(self) -> tuple[tuple[grpc.StatusCode, str] | None, Callable[[list[str]], list[str]] | None]:
        found = self._refusal, self._change
        if self._times is not None:
            self._times -= 1
            if self._times <= 0:
                self.obey()
        return found


def _noted(
    csr: x509.CertificateSigningRequest, asked: Any, cluster: str, admitted: bool
) -> CertificateRequest:
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    public = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateRequest(uri, public, asked.validity_duration, cluster, admitted)
