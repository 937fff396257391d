"""A peer's certificate, read: its names, its key. What ``ssl`` reads is taken from there, the rest from ``cryptography``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.core.sans import PeerName, canonical
from meshlib.model.tls import SanKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "ENCIPHERMENT",
    "SIGNATURE",
    "is_address",
    "key_usage",
    "names",
    "other_names",
    "public_key",
    "words",
]

#: Bits of the first byte of ``KeyUsage`` (RFC 5280, 4.2.1.3).
SIGNATURE, ENCIPHERMENT = 0x80, 0x20

#: As ``ssl`` calls the kinds that a matcher may have.
_KINDS = {"DNS": SanKind.DNS, "URI": SanKind.URI, "email": SanKind.EMAIL, "IP Address": SanKind.IP}
#: Types of ASN.1 whose bytes are text in some encoding (X.680, 8.4).
_TEXTS = {0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_BOOLEAN, _INTEGER, _BIT_STRING, _NULL, _OBJECT, _ENUMERATED = 0x01, 0x02, 0x03, 0x05, 0x06, 0x0A
_LONG, _MOST_LENGTH = 0x80, 4
#: Of a certificate: where its extensions are, and the one that says what its key is for, 2.5.29.15.
_EXTENSIONS, _KEY_USAGE = 0xA3, bytes.fromhex("551d0f")


def names(certificate: Mapping[str, Any]) -> list[PeerName]:
    """Its alternative names, but for other types. ``certificate``: as ``getpeercert`` gives it."""
    found = []
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _KINDS and isinstance(value, str):
            found.append(PeerName(_KINDS[kind], value.strip() if kind == "IP Address" else value))
    return found


def other_names(der: bytes) -> list[PeerName]:
    """Its names of other types. Raises ValueError for what cannot be read."""
    from cryptography import x509

    try:
        found = _loaded(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        PeerName(SanKind.OTHER_NAME, _text(one.value), one.type_id.dotted_string)
        for one in found
        if isinstance(one, x509.OtherName)
    ]


def public_key(der: bytes) -> bytes:
    """Its ``SubjectPublicKeyInfo``. Raises ValueError and what ``cryptography`` raises for keys that it does not know."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key: bytes = _loaded(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key


def key_usage(der: bytes) -> int | None:
    """What its key is for, the first byte of bits; None: it does not say. Raises ValueError for what cannot be read. What else is in it
    is not looked at: who verifies it has read that.
    """
    _, certificate = _value(der)
    _, body = _value(certificate)
    for kind, part in _parts(body):
        if kind != _EXTENSIONS:
            continue
        for _, extension in _parts(_value(part)[1]):
            fields = [value for _, value in _parts(extension)]
            if fields and fields[0] == _KEY_USAGE:
                bits = _value(fields[-1])[1]
                return bits[1] if len(bits) > 1 else 0
    return None


def is_address(name: str) -> bool:
    """Whether a name that is asked for is an IP address, which no SNI has."""
    return canonical(name) is not None


def words(subject: Any) -> str:
    """A distinguished name as ``ssl`` gives it, in words."""
    parts = [f"{kind}={value}" for line in subject or () for kind, value in line]
    return repr(", ".join(parts)[:200]) if parts else "somebody without a name"


def _loaded(der: bytes) -> Any:
    from cryptography import x509

    return x509.load_der_x509_certificate(der)


def _text(der: bytes) -> str:
    """A value of ASN.1 as Envoy makes it text (``generalNameAsString``): a string's bytes, a number in figures."""
    kind, body = _value(der)
    if kind in _TEXTS:
        return body.decode(_TEXTS[kind], "replace")
    if kind == _BOOLEAN:
        return "true" if any(body) else "false"
    if kind in (_INTEGER, _ENUMERATED):
        return str(int.from_bytes(body, "big", signed=True))
    if kind == _OBJECT:
        return _dotted(body)
    if kind == _NULL:
        return ""
    if kind == _BIT_STRING:
        body = body[1:]  # how many bits of the last byte do not count
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _value(der: bytes) -> tuple[int, bytes]:
    """The type and the content of a value in DER. Raises ValueError."""
    found = next(_parts(der), None)
    if found is None:
        raise ValueError("a value of ASN.1 is not there")
    return found


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The types and contents of values that stand one after the other in DER. Raises ValueError."""
    at = 0
    while at < len(der):
        if len(der) - at < 2:
            raise ValueError("a value of ASN.1 has no length")
        length, begin = der[at + 1], at + 2
        if length & _LONG:
            count = length & ~_LONG
            if not 0 < count <= _MOST_LENGTH:
                raise ValueError("a value of ASN.1 has no length")
            begin += count
            length = int.from_bytes(der[at + 2 : begin], "big")
        if len(der) - begin < length:
            raise ValueError("a value of ASN.1 is cut off")
        yield der[at], der[begin : begin + length]
        at = begin + length


def _dotted(body: bytes) -> str:
    numbers, number = [], 0
    for byte in body:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if not numbers:
        return ""
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
