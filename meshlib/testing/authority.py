"""A certificate authority of a trust domain, for tests: short-lived X.509-SVIDs, and roots that can be replaced."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Authority", "Pair", "key_pem"]

#: Seconds by which a certificate begins before it was made: clocks differ.
_BACKDATED = 60.0
_CA_LIFETIME = 24 * 3600.0


class Pair:
    """A certificate, with what it was signed by up to a root, and its key."""

    def __init__(self, chain: Sequence[x509.Certificate], key: Any) -> None:
        self.chain = tuple(chain)
        self.key = key

    @property
    def chain_pem(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


class Authority:
    """Signs with its newest root; ``roots`` has those before it, too, until they are dropped. Not thread-safe.

    ``intermediate``: it signs with a certificate of its own between the leaf and the root. ``ahead``: seconds by which its clock is.
    """

    def __init__(self, trust_domain: str = "cluster.local", *, intermediate: bool = False) -> None:
        self.trust_domain = trust_domain
        self.roots: list[x509.Certificate] = []
        self.ahead = 0.0
        self._made = 0
        self._intermediate = intermediate
        self.rotate()

    @property
    def roots_pem(self) -> bytes:
        """The newest first."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.roots)

    def prepare(self) -> None:
        """Another root is told, and signs after `activate`: who is told of it trusts it by then."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._made += 1
        root = self._certificate(f"root {self._made}", key.public_key(), key, None)
        self.roots.insert(0, root)
        self._prepared: tuple[Any, Any] = root, key

    def activate(self) -> None:
        """What was prepared last signs from now on."""
        root, key = self._signer = self._prepared
        self._above: tuple[x509.Certificate, ...] = ()
        if self._intermediate:
            own = ec.generate_private_key(ec.SECP256R1())
            between = self._certificate("intermediate", own.public_key(), key, root)
            self._signer, self._above = (between, own), (between,)

    def rotate(self) -> None:
        """Another root is told, and signs at once."""
        self.prepare()
        self.activate()

    def drop_old_roots(self) -> None:
        """Only the newest root is told from now on."""
        del self.roots[1:]

    def uri(self, path: str) -> str:
        """The SPIFFE ID of that path."""
        return f"spiffe://{self.trust_domain}{path}"

    def sign(self, public: Any, *names: str, lifetime: float) -> tuple[x509.Certificate, ...]:
        """The chain of a certificate for that key. A name with ``://`` is a URI, one that is an address is that, others are of DNS."""
        ca, key = self._signer
        leaf = _builder(public, ca, key, x509.Name([]), self.ahead, self.ahead + lifetime)
        leaf = leaf.add_extension(
            x509.SubjectAlternativeName([_name(each) for each in names]), critical=True
        ).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        signed = leaf.add_extension(usages, critical=False).sign(key, hashes.SHA256())
        return (signed, *self._above)

    def issue(self, *names: str, lifetime: float = 3600.0) -> Pair:
        """A pair with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(self.sign(key.public_key(), *names, lifetime=lifetime), key)

    def _certificate(self, name: str, public: Any, key: Any, above: x509.Certificate | None) -> Any:
        subject = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, self.trust_domain),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            ]
        )
        made = _builder(public, above, key, subject, 0.0, _CA_LIFETIME)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return made.sign(key, hashes.SHA256())


def key_pem(key: Any) -> bytes:
    """A private key, in PKCS#8."""
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


def _builder(
    public: Any, above: x509.Certificate | None, key: Any, subject: x509.Name, since: float, until: float
) -> x509.CertificateBuilder:
    """``above``: who signs it with ``key``; None: itself. Their keys are named: of two roots of one name OpenSSL tries no more than one."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(seconds=since - _BACKDATED))
        .not_valid_after(now + dt.timedelta(seconds=until))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
