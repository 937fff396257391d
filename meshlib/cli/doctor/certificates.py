"""What can be seen of a file that a configuration names: its rights, and how long its certificates are valid.

Of a certificate only its dates are read: in DER (X.690), down to ``TBSCertificate.validity`` (RFC 5280, 4.1). Nothing else of
this library needs to read one, and Python's ``ssl`` tells the dates of no certificate but a peer's.
"""

from __future__ import annotations

import calendar
import re
import ssl
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FileSeen", "Validity", "look_at", "validity"]

#: Bytes of a file that are read; the largest bundles of roots have half a million.
LONGEST = 4 * 2**20

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_SEQUENCE, _INTEGER, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x02, 0x17, 0x18, 0xA0


@dataclass(frozen=True, slots=True)
class Validity:
    """Seconds since 1970."""

    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class FileSeen:
    """``problem``: why it cannot be read, or what of it cannot be understood (``garbled``); ``absent``: it is not there; ``mode``: its
    permission bits; ``loose``: every user can put another into its place, since the directory's are such.
    """

    problem: str = ""
    garbled: bool = False
    mode: int = 0
    absent: bool = False
    loose: bool = False
    certificates: tuple[Validity, ...] = ()


def look_at(path: str, use: str) -> FileSeen:
    """The file as it is now. ``use`` ``"ca"`` or ``"certificate"``: its certificates too. Contents of others are not looked at."""
    raw, loose = b"", False
    try:
        mode = Path(path).stat().st_mode
        around = Path(path).parent.stat().st_mode
        loose = bool(around & stat.S_IWOTH) and not around & stat.S_ISVTX
        if stat.S_ISDIR(mode):
            return FileSeen("it is a directory")
        if stat.S_ISREG(mode):  # a pipe would wait for its writer, and what is read of it is gone for others
            with Path(path).open("rb") as file:
                raw = file.read(LONGEST if use in ("ca", "certificate") else 1)
    except (OSError, ValueError) as problem:
        words = (getattr(problem, "strerror", None) or str(problem)).lower()
        return FileSeen(words, absent=isinstance(problem, FileNotFoundError))
    if use not in ("ca", "certificate") or not stat.S_ISREG(mode):
        return FileSeen(mode=stat.S_IMODE(mode), loose=loose)
    mode = stat.S_IMODE(mode)
    try:
        found = tuple(validity(_der(pem)) for pem in _PEM.findall(raw))
    except ValueError as problem:
        return FileSeen(
            f"a certificate in it cannot be read: {problem}", garbled=True, mode=mode, loose=loose
        )
    if not found:
        return FileSeen("it has no certificate in PEM", garbled=True, mode=mode, loose=loose)
    return FileSeen(mode=mode, loose=loose, certificates=found)


def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))


def validity(der: bytes) -> Validity:
    """From when and until when a certificate is valid. Raises ValueError for what is none."""
    certificate = _inside(der, _SEQUENCE)
    parts = _parts(_inside(certificate, _SEQUENCE))
    tag, _ = first = next(parts, (0, b""))
    if tag == _VERSION:
        first = next(parts, (0, b""))
    if first[0] != _INTEGER:
        raise ValueError("the serial number is missing")
    next(parts, None)  # the signature's algorithm
    next(parts, None)  # the issuer
    tag, content = next(parts, (0, b""))
    if tag != _SEQUENCE:
        raise ValueError("the validity is missing")
    times = [_time(*part) for part in _parts(content)]
    if len(times) != 2:
        raise ValueError("the validity is not two times")
    return Validity(*times)


def _inside(raw: bytes, tag: int) -> bytes:
    found, content = next(_parts(raw), (0, b""))
    if found != tag:
        raise ValueError("it is no certificate")
    return content


def _parts(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents, one after the other."""
    at = 0
    while at < len(raw):
        begin, length = _length(raw, at + 1)
        if begin + length > len(raw):
            raise ValueError("it is cut off")
        yield raw[at], raw[begin : begin + length]
        at = begin + length


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """Where the content begins, and how long it is."""
    first = raw[at] if at < len(raw) else 0
    if first < 0x80:
        return at + 1, first
    count = first & 0x7F
    if not 1 <= count <= 4 or at + 1 + count > len(raw):
        raise ValueError("a length in it is wrong")
    return at + 1 + count, int.from_bytes(raw[at + 1 : at + 1 + count])


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # years of 50 and more are of the 20th century (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a time in it is none")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))
