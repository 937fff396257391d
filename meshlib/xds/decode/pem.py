"""PEM (RFC 7468), as far as it can be looked at without a library that does cryptography: whether what is there can be a
certificate, a revocation list or a key. Whether it is one, and whether the two belong together, the handshake's library finds out.

No word here repeats a byte of what it looked at.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator

__all__ = ["certificate_problem", "crl_problem", "key_problem"]

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_CRLS = frozenset({b"X509 CRL"})
_KEY = b"PRIVATE KEY"
_SEQUENCE = 0x30  # with what both begin in DER


def certificate_problem(text: bytes) -> str:
    """Why this has no certificates, in words; "" where it may have."""
    return _problem(text, _CERTIFICATES, "certificate")


def crl_problem(text: bytes) -> str:
    """The same of revocation lists."""
    return _problem(text, _CRLS, "revocation list")


def _problem(text: bytes, labels: frozenset[bytes], what: str) -> str:
    found = 0
    for label, body in _blocks(text):
        if label in labels:
            found += 1
            if not _is_der(body):
                return f"{what} {found} cannot be read"
    return "" if found else f"has no {what} in PEM"


def key_problem(text: bytes, *, password: bool) -> str:
    """The same of a private key. ``password``: one is said to go with it."""
    for label, body in _blocks(text):
        if not label.endswith(_KEY):
            continue
        if label.startswith(b"ENCRYPTED") or b",ENCRYPTED" in body:  # PKCS #8, and OpenSSL's older way
            return "" if password else "is encrypted, and there is no password"
        return "" if _is_der(body) else "cannot be read"
    return "has no private key in PEM"


def _blocks(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Label and body of each block that has an end; behind one that has none there is nothing."""
    at = text.find(_BEGIN)
    while at >= 0:
        begin = at + len(_BEGIN)
        head = text.find(_DASHES, begin)
        label = text[begin:head]
        end = text.find(_END + label + _DASHES, head) if head >= 0 else -1
        if end < 0:
            return
        yield label, text[head + len(_DASHES) : end]
        at = text.find(_BEGIN, end)


def _is_der(body: bytes) -> bool:
    try:
        held = binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error:
        return False
    return held[:1] == bytes((_SEQUENCE,))
