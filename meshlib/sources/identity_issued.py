"""Certificates that are issued to us: what they are asked for with, and whether what came is one that can be shown.

All of it is X.509 by ``cryptography``, which is loaded at the first use. Where anything is wrong with what came, `Unusable` says what,
and never has a byte of a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.model.tls import Certificate, Pem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate as Parsed

__all__ = ["Issued", "Unusable", "issued", "of_der", "of_pem", "pem", "public_key", "request"]

_SEQUENCE = 0x30  # the tag of a certificate in DER
_LONG = 0x80  # its length stands in the bytes after this one, whose lower bits are their number


class Unusable(ValueError):
    """What was issued cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """``uris``: whose it is. ``until``: when it ends, in seconds since the epoch."""

    certificate: Certificate
    uris: tuple[str, ...]
    until: float


def request(uri: str) -> tuple[PrivateKeyTypes, str]:
    """A new key (EC, P-256, as Istio's agent makes it), and in PEM the request for its certificate. The subject is empty; who we are
    stands in the alternative name, which is critical therefore.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = made.add_extension(names, critical=True).sign(key, hashes.SHA256())
    return key, signed.public_bytes(Encoding.PEM).decode("ascii")


def issued(chain: Sequence[Parsed], key: PrivateKeyTypes, now: float) -> Issued:
    """Raises Unusable where the first certificate of the chain is not the key's, or has expired."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not chain:
        raise Unusable("there is no certificate in it")
    leaf = chain[0]
    if public_key(leaf) != key.public_key():
        raise Unusable("the certificate is not of the key that it came with")
    until = leaf.not_valid_after_utc
    if until.timestamp() <= now:
        raise Unusable(f"the certificate has expired at {until:%Y-%m-%dT%H:%M:%SZ}")
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(Certificate(chain=Pem(pem(chain)), key=Pem(secret)), _uris(leaf), until.timestamp())


def public_key(leaf: Parsed) -> object:
    """Of a certificate; two of them are equal where the keys are. Raises Unusable for one of a sort that is not known."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise Unusable(f"the key in the certificate cannot be read: {problem}") from None


def _uris(leaf: Parsed) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as problem:
        raise Unusable(f"the names in the certificate cannot be read: {problem}") from None
    return tuple(found.get_values_for_type(x509.UniformResourceIdentifier))


def of_pem(text: bytes) -> list[Parsed]:
    """All certificates in it, in order; raises Unusable where there is none, or anything else is broken."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(text)
    except (ValueError, x509.InvalidVersion) as problem:
        raise Unusable(f"it is no certificate in PEM: {problem}") from None


def of_der(data: bytes) -> list[Parsed]:
    """The same of DER, one after the other without anything between."""
    from cryptography import x509

    try:
        return [x509.load_der_x509_certificate(one) for one in _split(data)]
    except (ValueError, x509.InvalidVersion) as problem:
        raise Unusable(f"it is no certificate in DER: {problem}") from None


def _split(data: bytes) -> list[bytes]:
    found, start = [], 0
    while start < len(data):
        end = start + _length(data[start : start + 6])
        if end > len(data):
            raise ValueError("it is cut off")
        found.append(data[start:end])
        start = end
    return found


def _length(head: bytes) -> int:
    """Of a sequence with this head, with it."""
    if len(head) < 2 or head[0] != _SEQUENCE:
        raise ValueError("it is no sequence")
    if head[1] < _LONG:
        return 2 + head[1]
    more = head[1] - _LONG
    if not 1 <= more <= len(head) - 2:
        raise ValueError("its length cannot be read")
    return 2 + more + int.from_bytes(head[2 : 2 + more], "big")


def pem(certificates: Sequence[Parsed]) -> bytes:
    """One after the other, in order."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
