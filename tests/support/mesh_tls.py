"""What a mesh demands of connections, in the words of files and PEM."""

from __future__ import annotations

from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import Certificate, Pem, San, SanKind, Tls, Validation

__all__ = ["demanded", "exactly"]


def exactly(name: str, kind: SanKind = SanKind.ANY) -> San:
    """A subject alternative name as it stands."""
    return San(kind, StringMatch(StringKind.EXACT, name))


def _pem(given: bytes | str) -> Pem:
    return Pem(file=given) if isinstance(given, str) else Pem(given)


def demanded(
    roots: bytes | str = b"", *sans: str, chain: bytes | str = b"", key: bytes | str = b"", **other: object
) -> Tls:
    """``bytes`` are PEM, text is the path of a file."""
    shown = Certificate(_pem(chain), _pem(key)) if chain or key else None
    validation = Validation(_pem(roots), sans=tuple(map(exactly, sans))) if roots or sans else None
    return Tls(certificate=shown, validation=validation, **other)  # type: ignore[arg-type]
