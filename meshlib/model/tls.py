"""TLS as the mesh orders it: what a connection is made with, and from whom it is accepted.

What is PEM is never in a repr, and neither it nor what holds it can be pickled: it may be a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NoReturn, Self

from meshlib.model.address import Address
from meshlib.model.match import StringMatch

__all__ = [
    "Certificate",
    "Pem",
    "San",
    "SanKind",
    "Secret",
    "SecretFrom",
    "SecretKind",
    "SecretName",
    "Tls",
    "TlsMatch",
    "Validation",
]


@dataclass(frozen=True, slots=True)
class Pem:
    """The bytes, or the path of the file that has them and is read again when it changes."""

    data: bytes = field(default=b"", repr=False)
    file: str = ""

    def __bool__(self) -> bool:
        return bool(self.data or self.file)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a certificate or a key of the mesh is not pickled")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


_NOTHING = Pem()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain, the leaf first, with its key, or both as ``pkcs12``; ``password``: of what is encrypted."""

    chain: Pem = _NOTHING
    key: Pem = _NOTHING
    pkcs12: Pem = _NOTHING
    password: Pem = _NOTHING


class SanKind(StrEnum):
    """Of subject alternative names. ANY: whatever it is (the field of before Envoy 1.21)."""

    ANY = "any"
    EMAIL = "email"
    DNS = "dns"
    URI = "uri"
    IP = "ip"
    OTHER_NAME = "other_name"


@dataclass(frozen=True, slots=True)
class San:
    """Envoy ``SubjectAltNameMatcher``. ``oid``: of an OTHER_NAME."""

    kind: SanKind
    match: StringMatch
    oid: str = ""


@dataclass(frozen=True, slots=True)
class Validation:
    """From whom a connection is accepted (Envoy ``CertificateValidationContext``).

    Attributes:
        roots: Who may have signed the certificate.
        domains: In the place of ``roots``, those of each trust domain of SPIFFE (gRFC A87): the one in the certificate's URI chooses.
        system: What the system trusts is trusted.
        sans: One of them must be in the certificate; none: any name may be.
        hashes: SHA-256 of the certificate, one of which must be its.
        spki: SHA-256 of the key in it, likewise; of both one must be right.
        crl: What was revoked; ``crl_leaf``: only the leaf is looked for in it.
        untrusted: Anybody may have signed it.
        expired: It may have expired.
        depth: At most so many certificates between the leaf and a root; None: any number.
    """

    roots: Pem = _NOTHING
    domains: Mapping[str, Pem] = field(default_factory=dict, hash=False)
    system: bool = False
    sans: tuple[San, ...] = ()
    hashes: tuple[bytes, ...] = ()
    spki: tuple[bytes, ...] = ()
    crl: Pem = _NOTHING
    crl_leaf: bool = False
    untrusted: bool = False
    expired: bool = False
    depth: int | None = None

    @property
    def signed(self) -> bool:
        """Whether somebody who is trusted must have signed the certificate."""
        return bool(self.roots or self.domains or self.system) and not self.untrusted


class SecretKind(StrEnum):
    """What a secret is to a client. OTHER: of no use to one."""

    CERTIFICATE = "certificate"
    CA = "CA"
    OTHER = "other"


class SecretFrom(Enum):
    """Who has a secret. CONTROL_PLANE: the one that named it, or whom it names for that. IDENTITY: the process's own identity, by
    the name of an instance.
    """

    CONTROL_PLANE = "control_plane"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret that is asked for by name, and what it is to be."""

    name: str
    kind: SecretKind
    source: SecretFrom = SecretFrom.CONTROL_PLANE


@dataclass(frozen=True, slots=True)
class Secret:
    """Envoy ``Secret``. ``unsupported``: what of it cannot be done. ``version``: under which it was sent."""

    name: str
    kind: SecretKind
    certificate: Certificate | None = None
    validation: Validation | None = None
    unsupported: str = ""
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a connection must use (Envoy ``UpstreamTlsContext``).

    Attributes:
        sni: The name that the server is asked for; ``auto_host_sni``: the endpoint's hostname goes before it.
        auto_sni_san: The name that was sent must be in the certificate, in the place of ``validation.sans``.
        certificate: What this side shows; None: nothing.
        validation: From whom it is accepted; None: from anybody, as in Envoy.
        certificates: The secret that ``certificate`` is to come from; ``roots``: the one that ``validation`` is to be completed from.
            None once it did (`core.trust`): as long as one is named, nobody is called.
        alpn: Protocols that are offered, in the place of those of the cluster.
        oldest: The oldest version of TLS, as ``"TLSv1.2"``, ``""``: OpenSSL's; ``newest`` likewise.
        ciphers: OpenSSL's names of suites up to TLS 1.2; none: OpenSSL's own.
        curve: Of the key exchange; ``""``: OpenSSL's own.
        sessions: Of how many handshakes the sessions are kept, to be resumed.
        renegotiates: The server may begin another handshake on a connection that stands (TLS 1.2).
        usage: What a certificate says its key is for must be what the handshake uses it for.
        proxied: Where a proxy is known, connections go through it, by CONNECT (Envoy ``Http11ProxyUpstreamTransport``). ``proxy``: that of
            endpoints and localities that name none; of an endpoint's own demand, its proxy.
        unsupported: What cannot be done of it: an endpoint behind it is never called, neither so nor in plain text.
        lacking: Why a secret is not there, with the same effect.
    """

    sni: str = ""
    auto_host_sni: bool = False
    auto_sni_san: bool = False
    certificate: Certificate | None = None
    validation: Validation | None = None
    certificates: SecretName | None = None
    roots: SecretName | None = None
    alpn: tuple[str, ...] = ()
    oldest: str = ""
    newest: str = ""
    ciphers: tuple[str, ...] = ()
    curve: str = ""
    sessions: int = 8
    renegotiates: bool = False
    usage: bool = True
    proxied: bool = False
    proxy: Address | None = None
    unsupported: str = ""
    lacking: str = ""

    @property
    def unverified(self) -> bool:
        """Whether anybody may be on the other end: names alone prove nothing."""
        found = self.validation
        return found is None or not (found.signed or found.hashes or found.spki)

    @property
    def secrets(self) -> tuple[SecretName, ...]:
        """Those that are asked for, and not in it yet."""
        return tuple(name for name in (self.certificates, self.roots) if name is not None)

    @property
    def closed(self) -> str:
        """Why nobody may be called with it, in words; ``""`` where it is whole."""
        words = "; ".join(filter(None, (self.unsupported, self.lacking)))
        return words or ", ".join(f"secret {each.name!r} has not come yet" for each in self.secrets)


@dataclass(frozen=True, slots=True)
class TlsMatch:
    """An entry of ``transport_socket_matches``: endpoints whose ``envoy.transport_socket_match`` metadata has all
    of ``match`` use ``tls`` (None: plain text).
    """

    name: str
    match: Mapping[str, object] = field(hash=False)
    tls: Tls | None
