"""SPIFFE's Workload API: whoever listens at a local socket (SPIRE's agent is one) says who this process is, and goes on saying it.

Theory. The stream of FetchX509SVID brings everything there is at once, and everything anew whenever anything of it changes (a
certificate in its half-life, a bundle): the last message that could be read whole is in force. Where it ends it is opened again after a pause
(`meshlib.sources.identity_network`), and what was had serves on. That there is no identity for this process (PERMISSION_DENIED) is an answer
and no outage: what was had is not ours any more (SPIFFE Workload API, 5.2.1).

The first identity of the list is the one that is shown, as the specification has it; a resource may name another by its SPIFFE ID, and the
bundle of a trust domain by the ID of the domain, as SPIRE's agent serves them to Envoy. Others are trusted by the bundle of the trust domain that
their certificate names, ours or one that is federated with it.

A message is parsed on the worker: a certificate takes some ten microseconds.
"""

from __future__ import annotations

import ipaddress
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshlib.model.tls import Pem, Secret, SecretKind, Validation
from meshlib.sources.channel import refusal
from meshlib.sources.identity_issued import Issued, Unusable, issued, of_der, pem
from meshlib.sources.identity_network import LARGEST, NetworkProvider
from meshlib.sources.stream import GrpcStream
from meshlib.xds.bootstrap import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.status import Ignored
    from meshlib.model.tls import SecretName
    from meshlib.runtime.worker import Worker
    from meshlib.sources.stream import AdsStream
    from meshlib.xds.schema import WireMessage

__all__ = ["SpiffeProvider", "target"]

_SCHEME = "spiffe://"
_DENIED = "PERMISSION_DENIED"
#: Identities and bundles of a message at most.
_MOST = 1000


def target(socket: str) -> str:
    """What grpc calls SPIFFE_ENDPOINT_SOCKET: ``unix:/path``, ``unix:///path`` or ``tcp://127.0.0.1:port``; ``127.0.0.1:port``
    is that, too. Raises ValueError.
    """
    parts = urlsplit(socket if ":/" in socket else f"tcp://{socket}")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{socket!r} has more in it than where a Workload API is")
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return f"unix:{parts.path}"
    if parts.scheme == "tcp" and parts.hostname and parts.port and not parts.path:
        address = ipaddress.ip_address(parts.hostname)
        return f"ipv{address.version}:{parts.netloc}"
    raise ValueError(f"{socket!r} is neither unix:///path nor tcp://IP:port")


class SpiffeProvider(NetworkProvider):
    """See the header. Raises ValueError for a ``socket`` that is none."""

    def __init__(self, worker: Worker, random: Callable[[], float], *, socket: str) -> None:
        super().__init__(worker, random, socket)
        options = (("grpc.max_receive_message_length", LARGEST), ("grpc.enable_http_proxy", 0))
        header = (
            ("workload.spiffe.io", "true"),
        )  # without it the API must refuse: no browser can be made to send it
        self._asked = Server(target(socket), metadata=header, options=options)
        self._stream: AdsStream | None = None
        self._named: Mapping[str, tuple[Secret, float]] = {}  # and until when
        self._ends = inf  # when the first of them does

    def secret(self, name: SecretName) -> Secret | str | None:
        """By the SPIFFE ID of one of our identities or of a trust domain, too."""
        if not name.name.startswith(_SCHEME):
            return super().secret(name)
        found, until = self._named.get(name.name, (None, 0.0))
        if found is None or found.kind is not name.kind:
            return (
                f"is not among those of the Workload API at {self.server}"
                if self._named
                else self.gone or None
            )
        return found if until > self.worker.clock.wall() else "has expired"

    def _due(self) -> float | None:
        return 0.0 if self._stream is None else None

    def _ask(self) -> None:
        from meshlib.sources.identity_wire import FETCH_X509_SVID

        problem = refusal()
        if problem:
            self.impossible(problem)
            return
        self._stream = GrpcStream(
            self._asked, self, self.worker.post, "", method=FETCH_X509_SVID, announces=False, only=b""
        )

    def _review(self) -> None:
        """One that is asked for by its ID may end before the one that is shown."""
        now = self.worker.clock.wall()
        if self._ends <= now:
            self._ends = self._end(now)
            self.changed()

    def _end(self, now: float) -> float:
        return min((until for _, until in self._named.values() if until > now), default=inf)

    def _break(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    # --- Ears -----------------------------------------------------------------------------------------------------------------

    def on_ready(self, stream: AdsStream) -> None:
        """It is not asked for."""

    def on_message(self, stream: AdsStream, raw: bytes) -> None:
        if stream is self._stream:
            try:
                self._read(raw)
            except Unusable as problem:
                self.refused(f"the answer of {self.server} cannot be used: {problem}")
        stream.consumed()

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        del unimplemented  # what is there instead may be replaced
        if stream is not self._stream:
            return
        self._stream = None
        if error.startswith(_DENIED):
            error = f"the Workload API has no identity for this process ({error})"
            self._named = {}
            self.withdrawn(f"was withdrawn: {error}")
        self.trouble(f"{self.server}: {error or 'the stream ended'}")

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        """A stream of grpc says none."""

    # --------------------------------------------------------------------------------------------------------------------------

    def _read(self, raw: bytes) -> None:
        """Raises Unusable, with everything as it was."""
        from meshlib.sources.identity_wire import message
        from meshlib.xds.schema import DecodeError

        try:
            answer = message("X509SVIDResponse").FromString(raw)
        except DecodeError as problem:
            raise Unusable(f"it is no X509SVIDResponse: {problem}") from None
        if not answer.svids:
            raise Unusable("there is no identity in it")
        if len(answer.svids) + len(answer.federated_bundles) > _MOST:
            raise Unusable(f"it has more than {_MOST} identities and bundles")
        now = self.worker.clock.wall()
        ours = [_identity(svid, now) for svid in answer.svids]
        domains = _bundles(answer)
        named: dict[str, tuple[Secret, float]] = {}
        for domain, roots in domains.items():
            name = _SCHEME + domain
            named[name] = Secret(name, SecretKind.CA, validation=Validation(roots=roots)), inf
        for svid, held in zip(answer.svids, ours, strict=True):
            name = svid.spiffe_id
            secret = Secret(name, SecretKind.CERTIFICATE, certificate=held.certificate)
            named.setdefault(name, (secret, held.until))
        old = self._named
        self._named = {name: old[name] if old.get(name) == new else new for name, new in named.items()}
        self._ends = self._end(now)
        self.trust(Validation(domains=domains))
        self.good(ours[0])


def _identity(svid: WireMessage, now: float) -> Issued:
    """Raises Unusable where it is no X509-SVID of the ID that it came with."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    name = svid.spiffe_id
    try:
        key = load_der_private_key(svid.x509_svid_key, None)
        held = issued(of_der(svid.x509_svid), key, now)
    except Unusable as problem:
        raise Unusable(f"{name[:200]}: {problem}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unusable(f"{name[:200]}: its key cannot be read") from None
    if held.uris != (name,):
        raise Unusable(f"{name[:200]}: the certificate is of {', '.join(held.uris)[:200] or 'nobody'}")
    return held


def _bundles(answer: WireMessage) -> dict[str, Pem]:
    """Those of our own trust domains, and of those that are federated with them, by the names of the domains. Raises Unusable."""
    found = {_domain(name): data for name, data in answer.federated_bundles.items()}
    found.update((_domain(svid.spiffe_id), svid.bundle) for svid in answer.svids)
    made = {}
    for domain, data in sorted(found.items()):
        try:
            made[domain] = Pem(pem(of_der(data)))
        except Unusable as problem:
            raise Unusable(f"the bundle of {domain[:200]}: {problem}") from None
        if not made[domain]:
            raise Unusable(f"the bundle of {domain[:200]} is empty")
    return made


def _domain(name: str) -> str:
    return name.removeprefix(_SCHEME).partition("/")[0]
