"""What a context is made of, as bytes: what was given so, and files as they are now."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshlib.errors import ConfigError
from meshlib.runtime.files import regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.model.tls import Pem, Tls

__all__ = ["Material", "Stamps", "read", "stamps", "where"]

#: Bytes that one file may have. The roots of all public authorities are some 250 KB.
_MOST = 4 * 1024 * 1024

#: What a file looks like from outside: its path, time of change, size and number, or the path alone of one that is not there.
Stamps = tuple[tuple[object, ...], ...]


@dataclass(frozen=True, slots=True)
class Material:
    """The bytes of what :class:`~meshlib.model.tls.Tls` names; ``parts`` by what they are, as in ``where``."""

    parts: dict[str, bytes] = field(repr=False)

    def __getitem__(self, what: str) -> bytes:
        return self.parts.get(what, b"")

    @property
    def digest(self) -> bytes:
        """Equal for equal material."""
        found = hashlib.sha256()
        for what, data in self.parts.items():
            found.update(f"{what}\0{len(data)}\0".encode("utf-8", "surrogatepass"))
            found.update(data)
        return found.digest()


def read(tls: Tls) -> Material:
    """All of it. Raises ConfigError that names what cannot be read."""
    return Material({what: pem.data or _content(what, pem) for what, pem in _given(tls)})


def stamps(tls: Tls) -> Stamps:
    """Of the files of ``tls``; none where it has none."""
    return tuple(_stamp(pem.file) for _, pem in _given(tls) if pem.file and not pem.data)


def where(what: str, pem: Pem) -> str:
    """What it is, with its path if it has one."""
    return f"the {what} {pem.file!r}" if pem.file and not pem.data else f"the {what}"


def _given(tls: Tls) -> Iterator[tuple[str, Pem]]:
    validation, certificate = tls.validation, tls.certificate
    found: list[tuple[str, Pem]] = []
    if validation is not None:
        found += [("roots", validation.roots), ("revocation list", validation.crl)]
        found += [(f"roots of {domain!r}", pem) for domain, pem in validation.domains.items()]
    if certificate is not None:
        found += [("certificate", certificate.chain), ("private key", certificate.key)]
        found += [("PKCS #12", certificate.pkcs12), ("password", certificate.password)]
    return ((what, pem) for what, pem in found if pem)


def _content(what: str, pem: Pem) -> bytes:
    try:
        with open(pem.file, "rb", opener=regular) as file:
            data = file.read(_MOST + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS: {where(what, pem)} cannot be read: {error}") from error
    if len(data) > _MOST:
        raise ConfigError(f"TLS: {where(what, pem)} cannot be read: it has more than {_MOST} bytes")
    return data


def _stamp(path: str) -> tuple[object, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - before each handshake, and a Path costs more than the system does
    except (OSError, ValueError):
        return (path,)
    return path, found.st_mtime_ns, found.st_size, found.st_ino
