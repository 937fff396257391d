"""Istio's CA: a key is made here, and istiod (or what speaks its API) is asked for a certificate by a service account's token.

Theory. One thread asks, and ends with what came of it (`meshlib.sources.identity_network` has the states):

    roots, token ──► TLS to the server ──► CreateCertificate(CSR) ──► chain, the leaf first and the root last ──► checked ──► in force

Each time there is a new key, which never leaves the memory of this process, and a channel of its own: a certificate serves for hours, and so
the files of roots and token are read anew, and a balancer may lead to another server. Its half-life is when it is renewed, give or take
a tenth of its life at random, so that processes that started together do not ask together (Istio's agent: a half, give or take a hundredth).

Others are trusted by the root that came last in the answer, and by those in the file of roots, which is where new roots of a mesh
appear first: who was given a certificate of the new root already must not be refused until we ask for our next one.
"""

from __future__ import annotations

import binascii
import json
import threading
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.config.identity import TOKEN
from meshlib.model.tls import Pem, Validation
from meshlib.runtime import threads
from meshlib.runtime.files import regular
from meshlib.sources.channel import call_metadata, open_channel, refusal
from meshlib.sources.identity_issued import Issued, Unusable, issued, of_pem, pem, request
from meshlib.sources.identity_network import LARGEST, NetworkProvider
from meshlib.sources.stream import closed, opened, words
from meshlib.xds.bootstrap import Channel, ChannelKind, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography.x509 import Certificate as Parsed

    from meshlib.runtime.worker import Worker

__all__ = ["CA", "SERVER", "TOKEN", "IstioProvider"]

#: Where they are in a pod that Istio's injection, or `docs/tasks/identity.md`, has prepared.
SERVER = "istiod.istio-system.svc:15012"
CA = "/var/run/secrets/istio/root-cert.pem"

#: Seconds for which a certificate is asked for: SECRET_TTL of Istio's agent. A CA may give another.
VALIDITY = 24 * 3600
#: Seconds for a whole answer: the agent's.
TIMEOUT = 10.0
#: When a certificate is renewed, as a share of its life, and how much of that is at random.
_RENEW, _JITTER = 0.5, 0.1


class IstioProvider(NetworkProvider):
    """See the header. ``metadata``: the node's. NAMESPACE and SERVICE_ACCOUNT (else what the token says) and TRUST_DOMAIN are written into
    the request, which Istio's own CA does not read, but others that speak its API do; CLUSTER_ID is told as Istio's agent does.
    """

    def __init__(
        self,
        worker: Worker,
        random: Callable[[], float],
        *,
        server: str = SERVER,
        token: str = TOKEN,
        ca: str = CA,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(worker, random, server)
        self._ca = ca
        self._metadata = metadata or {}
        cluster = str(self._metadata.get("CLUSTER_ID", ""))
        self._asked = Server(
            server,
            Channel(ChannelKind.TLS, ca_file=ca, tokens=(token,)),
            metadata=(("clusterid", cluster),) if cluster else (),
            options=(("grpc.max_receive_message_length", LARGEST),),
        )
        self._asking: _Asking | None = None
        self._renew = 0.0
        self._stamp: object = None  # of the file of roots when it was last read
        self._of_file: Sequence[Parsed] = ()
        self._of_answer: Sequence[Parsed] = ()

    def _due(self) -> float | None:
        if self._asking is not None:
            return None
        return self._renew if self.held is not None else 0.0

    def _ask(self) -> None:
        problem = refusal()
        if problem:
            self.impossible(problem)
            return
        self._asking = _Asking(self._asked, self._metadata, self.worker, self._answered)

    def _break(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel(0.5)

    def _answered(self, asking: _Asking, answer: tuple[Issued, Sequence[Parsed]] | str) -> None:
        if asking is not self._asking:
            return
        self._asking = None
        if isinstance(answer, str):
            self.trouble(answer)
            return
        held, self._of_answer = answer
        now = self.worker.clock.wall()
        share = _RENEW + _JITTER * (2 * self.random() - 1)
        self._renew = now + (held.until - now) * share
        self._trust()
        self.good(held)

    def _review(self) -> None:
        """The file of roots."""
        try:
            found = Path(self._ca).stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            with open(self._ca, "rb", opener=regular) as file:
                self._of_file = of_pem(file.read(LARGEST))
        except (OSError, Unusable):
            return  # what was in it serves; the next request says what is wrong
        self._stamp = stamp
        if self._trust():
            self.changed()

    def _trust(self) -> bool:
        roots = pem(list(dict.fromkeys((*self._of_file, *self._of_answer))))
        return self.trust(Validation(roots=Pem(roots)))


class _Asking:
    """One request. ``_lock`` guards the call and the channel between the thread, which makes them, and ``cancel``."""

    def __init__(
        self,
        server: Server,
        metadata: Mapping[str, Any],
        worker: Worker,
        heard: Callable[[_Asking, tuple[Issued, Sequence[Parsed]] | str], None],
    ) -> None:
        self._server = server
        self._metadata = metadata
        self._worker = worker
        self._heard = heard
        self._lock = threading.Lock()
        self._cancelled = False
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="meshlib-identity", daemon=True)
        opened(self)
        threads.start(self._thread)

    def cancel(self, timeout: float) -> None:
        with self._lock:
            self._cancelled = True
            call = self._call
        if call is not None:
            call.cancel()
        threads.join(self._thread, timeout)

    def _run(self) -> None:
        answer: tuple[Issued, Sequence[Parsed]] | str
        try:
            answer = self._ask()
        except Unusable as problem:
            answer = f"the answer of {self._server.uri} cannot be used: {problem}"
        except Exception as problem:  # noqa: BLE001 - whatever it is, the provider must hear of the end
            answer = f"{self._server.uri}: {words(problem)}"
        finally:
            closed(self, self._thread)
        self._worker.post(lambda: self._heard(self, answer))

    def _ask(self) -> tuple[Issued, Sequence[Parsed]]:
        from meshlib.sources.identity_wire import CREATE_CERTIFICATE, message

        metadata = call_metadata(self._server)
        key, csr = request(_uri(self._metadata, metadata))
        asked = message("istio.v1.auth.IstioCertificateRequest")(csr=csr, validity_duration=VALIDITY)
        channel = open_channel(self._server)
        try:
            with self._lock:
                if self._cancelled:
                    raise TimeoutError
                # None: bytes as they are.
                call = channel.unary_unary(CREATE_CERTIFICATE, None, None)
                self._call = call.future(asked.SerializeToString(), timeout=TIMEOUT, metadata=metadata)
            raw = self._call.result()
        finally:
            channel.close()
        return _read(raw, key, self._worker.clock.wall())


def _read(raw: bytes, key: Any, now: float) -> tuple[Issued, Sequence[Parsed]]:
    """What is in force by an answer, and the roots in it. Raises Unusable."""
    from meshlib.sources.identity_wire import message
    from meshlib.xds.schema import DecodeError

    try:
        chain: Sequence[str] = message("istio.v1.auth.IstioCertificateResponse").FromString(raw).cert_chain
    except DecodeError as problem:
        raise Unusable(f"it is no IstioCertificateResponse: {problem}") from None
    if len(chain) < 2:
        raise Unusable(f"its chain has {len(chain)} certificates, and not a leaf and a root")
    *ours, root = (each.encode() for each in chain)
    parsed = [certificate for each in ours for certificate in of_pem(each)]
    return issued(parsed, key, now), of_pem(root)


def _uri(node: Mapping[str, Any], metadata: tuple[tuple[str, str], ...]) -> str:
    """Who we are, as Istio spells it."""
    namespace, account = _subject(dict(metadata).get("authorization", ""))
    domain = node.get("TRUST_DOMAIN") or "cluster.local"
    namespace, account = node.get("NAMESPACE") or namespace, node.get("SERVICE_ACCOUNT") or account
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"


def _subject(bearer: str) -> tuple[str, str]:
    """Namespace and service account that a token of Kubernetes names as its subject, unproved; ``default`` for what it does not name."""
    _, _, claims = bearer.partition(".")
    claims = claims.partition(".")[0]
    try:
        found = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        kind, what, namespace, account = found["sub"].split(":")
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "default", "default"
    return (namespace, account) if (kind, what) == ("system", "serviceaccount") else ("default", "default")
