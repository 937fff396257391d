"""What is checked of a peer once OpenSSL is done with it, and how each refusal is told.

It runs as the last step of ``do_handshake``, on sockets (gevent's too) and on objects (asyncio, uvloop). A resumed session has no
chain; it was checked when it was made, and is resumed by nobody who checks something else.

``ssl`` has no public name for the chain before Python 3.13, nor at all for certificates of a peer that OpenSSL did not verify, and none
for a handshake that failed; its objects have them all.
"""

from __future__ import annotations

import _ssl
import hashlib
import ssl
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.core.sans import PeerName, compile_sans, describe_name, describe_san
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import San, SanKind
from meshlib.runtime.tls import peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from meshlib.core.sans import SansTest

__all__ = ["CheckedContext", "Checks", "offered"]

Connection = ssl.SSLSocket | ssl.SSLObject

#: Istio's own protocol, in which the server speaks first.
_NEVER_OFFERED = "istio-peer-exchange"
#: Of these only what this side speaks may be offered, since the server's choice is spoken then.
_HTTP = frozenset({"h3", "h2", "http/1.1", "http/1.0"})
#: Names of a certificate that an error tells, and characters of each: a certificate may have thousands.
_MOST_TOLD = 8
_MOST_OF_ONE = 200
#: How OpenSSL names suites in which the certificate's key signs; in the others it deciphers.
_SIGNED = ("ECDHE-", "DHE-", "TLS_")
#: OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID (x509_vfy.h).
_OF_TIME = (10, 9)


def offered(alpn: Iterable[str], spoken: Iterable[str]) -> list[str]:
    """What is offered by ALPN: the mesh's order, and behind it what this side speaks of HTTP, which the server may choose."""
    spoken = list(spoken)
    found = [one for one in alpn if one != _NEVER_OFFERED and (one in spoken or one not in _HTTP)]
    return found + [one for one in spoken if one not in found]


@dataclass(frozen=True, slots=True)
class Checks:
    """What a peer must be beyond what OpenSSL verifies.

    Attributes:
        sans: One of its names must pass; None: any name may be there.
        wanted: In words.
        by_sni: The name that was sent must be in the certificate, in the place of ``sans``.
        by_host: The name that was asked for must be, where there are no ``sans``. OpenSSL looks at it unless others may go before.
        others: The names to be looked at are of other types, too.
        hashes: SHA-256 of the certificate; ``spki``: of its key. One of both must be right.
        domains: The certificates of each trust domain of SPIFFE, as DER.
        depth: Certificates that may be between the leaf and what is trusted.
    """

    sans: SansTest | None = None
    wanted: str = ""
    by_sni: bool = False
    by_host: bool = False
    others: bool = False
    hashes: frozenset[bytes] = frozenset()
    spki: frozenset[bytes] = frozenset()
    domains: Mapping[str, frozenset[bytes]] | None = None
    depth: int | None = None


class CheckedContext(ssl.SSLContext):
    """A context whose connections check more than OpenSSL does. ``checks``: None where nobody is verified; ``usage``: what the
    certificate says of its key must fit the handshake; ``alpn``: what the mesh orders to be offered.
    """

    checks: Checks | None = None
    usage: bool = False
    alpn: tuple[str, ...] = ()

    @classmethod
    def of(cls) -> CheckedContext:
        """One that verifies nobody yet."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.sslsocket_class = _CheckedSocket
        made.sslobject_class = _CheckedObject
        return made

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        super().set_alpn_protocols(offered(self.alpn, alpn_protocols))


class _CheckedSocket(ssl.SSLSocket):
    #: Names of which the certificate must have one, in the place of the context's.
    names: tuple[str, ...] = ()

    def do_handshake(self, *block: bool) -> None:  # gevent's takes none
        _checked(self, lambda: super(_CheckedSocket, self).do_handshake(*block))


class _CheckedObject(ssl.SSLObject):
    names: tuple[str, ...] = ()

    def do_handshake(self) -> None:
        _checked(self, super().do_handshake)


def _checked(connection: Any, shake_hands: Callable[[], None]) -> None:
    context = connection.context
    try:
        shake_hands()
    except ssl.SSLCertVerificationError as error:
        raise _told(connection, error) from None
    if isinstance(context, CheckedContext) and (context.usage or context.checks is not None):
        try:
            if context.usage and not connection.session_reused:
                _check_usage(connection)
            if context.checks is not None:
                _check(connection, context.checks)
        except ssl.SSLError:
            raise
        except Exception as error:
            # What cannot be read of a certificate is nobody's; asyncio would let other errors pass it by.
            raise _refusal(f"the certificate cannot be read: {error}") from error


def _check(connection: Any, checks: Checks) -> None:
    """Raises SSLCertVerificationError."""
    leaf = connection.getpeercert(True)
    if leaf is None:
        raise _refusal("the peer showed no certificate")
    _check_names(connection, checks, leaf)
    if checks.hashes or checks.spki:
        _check_pins(leaf, checks)
    if connection.session_reused:
        return
    if checks.domains is not None:
        _check_domain(connection, checks.domains)
    if checks.depth is not None:
        between = len(connection._sslobj.get_verified_chain()) - 2
        if between > checks.depth:
            words = f"{between} certificates are between the peer's and the one that is trusted; {checks.depth} may be"
            raise _refusal(words)


def _check_usage(connection: Any) -> None:
    """As BoringSSL: a key that signed the handshake is one for signatures, one that secrets were encrypted to is one for that. OpenSSL
    asks for one of both. A certificate that says nothing is for anything.
    """
    leaf, cipher = connection.getpeercert(True), connection.cipher()
    if leaf is None or cipher is None:
        return
    usage = peer.key_usage(leaf)
    signed = cipher[0].startswith(_SIGNED)
    if usage is None or usage & (peer.SIGNATURE if signed else peer.ENCIPHERMENT):
        return
    words = "digital signatures" if signed else "the encipherment of keys"
    raise _refusal(f"the certificate's key is not for {words}, which {cipher[0]} needs")


def _check_names(connection: Any, checks: Checks, leaf: bytes) -> None:
    test, wanted = checks.sans, checks.wanted
    name = connection.server_hostname
    sought: tuple[San, ...] = ()
    if connection.names:
        sought = tuple(_exactly(SanKind.ANY, name) for name in connection.names)
    elif checks.by_sni and name and not peer.is_address(name):
        sought = (_exactly(SanKind.DNS, name),)
    elif test is None and checks.by_host and not connection.context.check_hostname:
        sought = (_exactly(SanKind.ANY, name or ""),)
    if sought:
        test, wanted = compile_sans(sought), " or ".join(map(describe_san, sought))
    if test is None:
        return
    held = peer.names(_certificate(connection))
    if checks.others:
        held += peer.other_names(leaf)
    if not test(held):
        raise _refusal(f"the certificate has none of the names {wanted}; it has {_listed(held)}")


def _exactly(kind: SanKind, name: str) -> San:
    return San(kind, StringMatch(StringKind.EXACT, name))


def _check_pins(leaf: bytes, checks: Checks) -> None:
    own = hashlib.sha256(leaf).digest()
    if own in checks.hashes:
        return
    words = f"the certificate is none of those that are pinned: its SHA-256 is {own.hex()}"
    if checks.spki:
        key = hashlib.sha256(peer.public_key(leaf)).digest()
        if key in checks.spki:
            return
        words += f", its key's {b64encode(key).decode()}"
    pinned = [one.hex() for one in sorted(checks.hashes)]
    pinned += [f"the key's {b64encode(one).decode()}" for one in sorted(checks.spki)]
    raise _refusal(f"{words}; pinned: {_cut(pinned)}")


def _check_domain(connection: Any, domains: Mapping[str, frozenset[bytes]]) -> None:
    """What gRFC A87 says: the trust domain of the certificate's one URI says whose roots must have signed it."""
    uris = [name.value for name in peer.names(_certificate(connection)) if name.kind is SanKind.URI]
    if len(uris) != 1 or not uris[0].lower().startswith("spiffe://"):
        raise _refusal(f"the certificate has no one SPIFFE ID; its URIs: {_cut(uris)}")
    domain = uris[0][len("spiffe://") :].partition("/")[0].lower()
    roots = domains.get(domain)
    if roots is None:
        words = f"nothing is known of the trust domain {domain[:_MOST_OF_ONE]!r} of the certificate"
        raise _refusal(f"{words}; known: {_cut(sorted(domains))}")
    chain = connection._sslobj.get_verified_chain()
    if not any(one.public_bytes(_ssl.ENCODING_DER) in roots for one in chain):
        signer = peer.words(chain[-1].get_info().get("subject"))
        raise _refusal(
            f"{signer} signed a certificate of the trust domain {domain!r}, and is none of its roots"
        )


def _certificate(connection: Any) -> Mapping[str, Any]:
    """The peer's, as ``getpeercert`` gives it, which gives none where nobody is verified."""
    verified: Mapping[str, Any] = connection.getpeercert()
    if verified:
        return verified
    certificate: Mapping[str, Any] = connection._sslobj.get_unverified_chain()[0].get_info()
    return certificate


def _told(connection: Any, error: ssl.SSLCertVerificationError) -> ssl.SSLCertVerificationError:
    """What OpenSSL refused, with what is known of the certificate."""
    try:
        known = _known(connection, error.verify_code)
    except Exception as problem:  # noqa: BLE001 - asyncio would let it pass by, as in _checked
        known = f"; the certificate cannot be read: {problem}"
    return _refusal(error.verify_message + known, error.verify_code)


def _known(connection: Any, code: int) -> str:
    chain = connection._sslobj.get_unverified_chain()
    if not chain:
        return ""
    found = chain[0].get_info()
    words = f"; the certificate of {_listed(peer.names(found))}, signed by {peer.words(found.get('issuer'))}"
    if code in _OF_TIME:
        words += f", holds from {found.get('notBefore')} to {found.get('notAfter')}"
    return words


def _refusal(words: str, code: int = 0) -> ssl.SSLCertVerificationError:
    made = ssl.SSLCertVerificationError(1, f"certificate verify failed: {words}")
    made.reason, made.library = "CERTIFICATE_VERIFY_FAILED", "SSL"
    made.verify_code, made.verify_message = code, words
    return made


def _listed(names: list[PeerName]) -> str:
    return _cut([describe_name(name) for name in names])


def _cut(words: list[str]) -> str:
    told = ", ".join(word[:_MOST_OF_ONE] for word in words[:_MOST_TOLD]) or "none"
    return f"{told} and {len(words) - _MOST_TOLD} more" if len(words) > _MOST_TOLD else told
