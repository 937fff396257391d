"""What certificates, keys and roots say of themselves, and whether they can be used: for whoever has an identity to give.

Everything here raises ValueError in words that have nothing of what was read: it may be a key.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.model.tls import Pem
from meshlib.sources.identity_issued import of_der, of_pem, pem, public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.x509 import Certificate

__all__ = ["CertificateFacts", "check_pair", "check_roots", "domains", "facts_of"]

#: Trust domains of a map, and characters of the name of one (SPIFFE-ID, 2.1).
MOST_DOMAINS = 10_000
LONGEST_DOMAIN = 255

_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """``name``: the SPIFFE ID, else the alternative names, else the subject; ``begins`` and ``ends``: seconds since the epoch."""

    name: str
    begins: float
    ends: float


def facts_of(chain: bytes) -> CertificateFacts:
    """Of the leaf, which is the first of the chain. Raises ValueError for what is no chain."""
    return _facts(of_pem(chain)[0])


def check_pair(chain: bytes, key: bytes) -> CertificateFacts:
    """As ``facts_of``; raises ValueError for what is no pair, too."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    leaf = of_pem(chain)[0]
    try:
        mine = load_pem_private_key(key, None).public_key()
    except TypeError:  # a password is needed
        raise ValueError("the private key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no private key in PEM that can be read") from None
    if mine != public_key(leaf):
        raise ValueError("certificate and private key are no pair")
    return _facts(leaf)


def check_roots(text: bytes) -> int:
    """How many certificates there are. Raises ValueError where there is none, or one that cannot be read."""
    return len(of_pem(text))


def domains(raw: bytes) -> Mapping[str, Pem]:
    """The roots of each trust domain of a map of SPIFFE's bundles (gRFC A87, SPIFFE_Trust_Domain_and_Bundle). One that is wrong makes
    all of it wrong, as in gRPC. Raises ValueError.
    """
    try:
        table = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    found = table.get("trust_domains") if isinstance(table, dict) else None
    if not isinstance(found, dict):
        raise ValueError("trust_domains is missing")  # noqa: TRY004 - what is read is wrong, no argument
    if len(found) > MOST_DOMAINS:
        raise ValueError(f"it has more than {MOST_DOMAINS} trust domains")
    return {_domain(name): Pem(_bundle(name, bundle)) for name, bundle in found.items()}


def _domain(name: str) -> str:
    if not 0 < len(name) <= LONGEST_DOMAIN or not _DOMAIN.issuperset(name):
        raise ValueError(f"{name[:LONGEST_DOMAIN]!r} is no trust domain")
    return name


def _bundle(name: str, bundle: Any) -> bytes:
    keys = bundle.get("keys") if isinstance(bundle, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError(f"keys of the trust domain {name!r} is no list of keys")
    return b"".join(_root(name, key) for key in keys)


def _root(name: str, key: Mapping[str, Any]) -> bytes:
    chain = key.get("x5c")
    if key.get("kty") not in ("RSA", "EC") or key.get("use") != "x509-svid":
        raise ValueError(
            f'a key of the trust domain {name!r} is not of kty "RSA" or "EC" and use "x509-svid"'
        )
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise ValueError(f"x5c of a key of the trust domain {name!r} must have one certificate")
    try:
        found = of_der(base64.b64decode(chain[0], validate=True))
    except (binascii.Error, ValueError):
        raise ValueError(f"x5c of a key of the trust domain {name!r} is no certificate in base64") from None
    if len(found) != 1:
        raise ValueError(f"x5c of a key of the trust domain {name!r} must have one certificate")
    return pem(found)


def _facts(leaf: Certificate) -> CertificateFacts:
    return CertificateFacts(
        _name(leaf), leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    )


def _name(leaf: Certificate) -> str:
    from cryptography.x509 import (
        DNSName,
        DuplicateExtension,
        ExtensionNotFound,
        SubjectAlternativeName,
        UniformResourceIdentifier,
        UnsupportedGeneralNameType,
    )

    try:
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, ValueError, DuplicateExtension, UnsupportedGeneralNameType):
        return leaf.subject.rfc4514_string()
    uris = names.get_values_for_type(UniformResourceIdentifier)
    spiffe = next((uri for uri in uris if uri.startswith("spiffe://")), "")
    return spiffe or ", ".join([*names.get_values_for_type(DNSName), *uris]) or leaf.subject.rfc4514_string()
