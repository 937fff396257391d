"""Secrets that a control plane sends: certificates with their keys, and CAs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Secret", "SecretKind", "SecretName"]


class SecretKind(StrEnum):
    """What a secret is to a client. OTHER: of no use to one."""

    CERTIFICATE = "certificate"
    CA = "CA"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret that is asked for by name, and what it is to be."""

    name: str
    kind: SecretKind


@dataclass(frozen=True, slots=True)
class Secret:
    """Envoy ``Secret``: PEM bytes or file paths. ``sans``: as of `Tls`. ``unsupported``: what of it cannot be done yet. ``version``: under
    which the control plane sent it. What is PEM is not in the repr: a certificate's may hold its key.
    """

    name: str
    kind: SecretKind
    cert_pem: bytes = field(default=b"", repr=False)
    cert_file: str = ""
    key_pem: bytes = field(default=b"", repr=False)
    key_file: str = ""
    ca_pem: bytes = field(default=b"", repr=False)
    ca_file: str = ""
    sans: tuple[str, ...] = ()
    unsupported: str = ""
    version: str = field(default="", compare=False)
