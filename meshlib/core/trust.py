"""What a connection must use, completed with the secrets that it names.

A name of a certificate is answered by that certificate. The validation of a CA is merged into what stands beside its name, as protobuf
merges messages and Envoy does (``combined_validation_context``): what the secret sets wins, and its lists are added to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshlib.model.tls import Secret, SecretFrom, SecretKind, SecretName, Tls, Validation

__all__ = ["linked"]


def linked(tls: Tls, find: Callable[[SecretName], Secret | str | None], source: SecretFrom) -> Tls | None:
    """``tls`` with its secrets of ``source``; itself where it names none. ``find``: the secret, or why it will not come, in words that
    follow its name; None: it may yet come, and so ``linked`` gives None.
    """
    found = {name: find(name) for name in tls.secrets if name.source is source}
    if not found:
        return tls
    if any(each is None for each in found.values()):
        return None
    words = [tls.lacking] if tls.lacking else []
    certificate, validation = tls.certificate, tls.validation
    for name, secret in found.items():
        problem = _problem(name, secret)
        if problem:
            words.append(f"secret {name.name!r} {problem}")
        elif isinstance(secret, Secret) and name.kind is SecretKind.CERTIFICATE:
            certificate = secret.certificate
        elif isinstance(secret, Secret) and secret.validation is not None:
            validation = _merged(validation or Validation(), secret.validation)
    return replace(tls, certificate=certificate, validation=validation, lacking="; ".join(words))


def _problem(name: SecretName, secret: Secret | str | None) -> str:
    """Why the secret is of no use here, in words; "" if it is."""
    if not isinstance(secret, Secret):
        return secret or "has not come yet"
    if secret.kind is not name.kind:
        return f"is no {name.kind}"
    return f"has {secret.unsupported}" if secret.unsupported else ""


def _merged(default: Validation, came: Validation) -> Validation:
    return Validation(
        roots=came.roots or default.roots,
        domains={**default.domains, **came.domains},
        system=default.system or came.system,
        sans=default.sans + came.sans,
        hashes=default.hashes + came.hashes,
        spki=default.spki + came.spki,
        crl=came.crl or default.crl,
        crl_leaf=default.crl_leaf or came.crl_leaf,
        untrusted=default.untrusted or came.untrusted,
        expired=default.expired or came.expired,
        depth=default.depth if came.depth is None else came.depth,
    )
