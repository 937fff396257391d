"""What the ``tls`` of a service of the configuration file demands of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import (
    Certificate,
    Pem,
    San,
    SanKind,
    SecretFrom,
    SecretKind,
    SecretName,
    Tls,
    Validation,
)
from meshlib.sources.identity_base import CERTIFICATE, ROOTS

if TYPE_CHECKING:
    from meshlib.config import IdentityConfig, ServiceTlsConfig

__all__ = ["build"]

_SHOWN = SecretName(CERTIFICATE, SecretKind.CERTIFICATE, SecretFrom.IDENTITY)
_TRUSTED = SecretName(ROOTS, SecretKind.CA, SecretFrom.IDENTITY)


def build(told: ServiceTlsConfig, identity: IdentityConfig) -> Tls:
    """``identity``: what is told of it; one that is only found is the control plane's affair."""
    of_the_mesh = any(san.startswith("spiffe://") for san in told.sans)
    trusted = _TRUSTED if told.ca is None and of_the_mesh and identity.trusts else None
    return Tls(
        sni=told.sni or "",
        certificate=None if told.cert is None else Certificate(Pem(file=told.cert), Pem(file=told.key or "")),
        certificates=_SHOWN if told.cert is None and identity.certifies else None,
        validation=Validation(
            roots=Pem(file=told.ca or ""),
            system=told.ca is None and trusted is None,
            sans=tuple(San(SanKind.ANY, StringMatch(StringKind.EXACT, san)) for san in told.sans),
        ),
        roots=trusted,
    )
