"""Certificates as a mesh's own authority issues them: with names of every kind, for as long as a test says."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Issued"]

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, as PEM. ``pin``: SHA-256 of its key (SPKI), ``digest``: of the certificate."""

    chain: bytes
    key: bytes
    pin: bytes = field(repr=False, default=b"")
    digest: bytes = field(repr=False, default=b"")

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """As ``grpc.ssl_server_credentials`` takes it."""
        return self.key, self.chain


class Authority:
    """A root, which issues leaves."""

    def __init__(self, name: str = "mesh") -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._signed(f"{name} root", self._key, (), ca=True, until=_DAY).public_bytes(
            Encoding.PEM
        )

    def issue(self, *names: str, common: str = "leaf", until: dt.timedelta = _DAY) -> Issued:
        """A leaf with these names: URIs, addresses and DNS names, as they look. ``until``: from now, when it expires."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._signed(common, key, names, ca=False, until=until)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Issued(
            made.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            _sha256(public),
            made.fingerprint(hashes.SHA256()),
        )

    def _signed(
        self, common: str, key: Any, names: tuple[str, ...], *, ca: bool, until: dt.timedelta
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(_named(common))
            .issuer_name(_named(f"{self._name} root"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + until)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(list(map(_san, names))), critical=False)
        return made.sign(self._key, hashes.SHA256())


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def _named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _san(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
