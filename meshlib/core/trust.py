"""A demand for TLS and the secrets that it names, put together. Pure.

    a secret that is named                                      the demand with it
    ----------------------------------------------------------  ---------------------------------------------------
    may yet come                                                is not made: whoever asks waits, for as long as he does
    will not come                                               lacks it, in words
    is of another kind, cannot be done, or gives a validation   lacks it, in words
    that is none
    is a certificate                                            shows it
    is a CA                                                     verifies by it; what the demand says of validation
                                                                itself stands, and the secret's is merged into it as
                                                                protobuf merges messages: a value that is set takes
                                                                the place of the old, lists are joined

A demand that lacks nothing names no secret of the origin that was asked about any more; those of others stay named, and as long as
any does, or something lacks, no connection is made with it (`Tls.closed`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshlib.model.cluster import Cluster
from meshlib.model.tls import SanKind, Secret, SecretFrom, SecretName, Tls, Validation

__all__ = ["Find", "alike", "completed", "linked", "merged", "named", "unsound"]

Find = Callable[[SecretName], Secret | str | None]
"""Answers the secret; a str: why it will not come, in words that follow its name; None: it may yet come."""


def named(cluster: Cluster, source: SecretFrom) -> frozenset[SecretName]:
    """The secrets of that origin that connections to the cluster's endpoints need. What cannot be done of a demand needs none."""
    demands = (cluster.tls, *(each.tls for each in cluster.tls_matches))
    return frozenset(
        name
        for tls in demands
        if tls is not None and not tls.unsupported
        for name in tls.secrets
        if name.source is source
    )


def alike(one: Secret | str | None, other: Secret | str | None) -> bool:
    """Whether what is known of a secret is what was known before: the same object, since a rotated one is another, or equal words."""
    return one is other or (isinstance(one, str) and one == other)


def completed(cluster: Cluster, find: Find, source: SecretFrom) -> Cluster | None:
    """The cluster with each of its demands as `linked`: the same object where that changes nothing; None as long as one is awaited."""
    tls = None if cluster.tls is None else linked(cluster.tls, find, source)
    if tls is None and cluster.tls is not None:
        return None
    matches = []
    for each in cluster.tls_matches:
        made = None if each.tls is None else linked(each.tls, find, source)
        if made is None and each.tls is not None:
            return None
        matches.append(each if made is each.tls else replace(each, tls=made))
    if tls is cluster.tls and all(new is old for new, old in zip(matches, cluster.tls_matches, strict=True)):
        return cluster
    return replace(cluster, tls=tls, tls_matches=tuple(matches))


def linked(tls: Tls, find: Find, source: SecretFrom) -> Tls | None:
    """`tls` with the secrets of that origin, the same object where it names none; None as long as one is awaited."""
    found = {name: find(name) for name in tls.secrets if name.source is source}
    if not found or tls.unsupported:
        return tls
    if None in found.values():
        return None
    certificate, validation, lacks = tls.certificate, tls.validation, []
    for name, secret in found.items():
        words = _unusable(name, secret)
        if words:
            lacks.append(words)
        elif isinstance(secret, Secret) and secret.certificate is not None:
            certificate = secret.certificate
        elif isinstance(secret, Secret) and secret.validation is not None:
            validation = merged(tls.validation, secret.validation)
            if wrong := unsound(validation, sent_name=tls.auto_sni_san):
                lacks.append(f"secret {name.name!r} {wrong}")
    lacking = "; ".join((*filter(None, (tls.lacking,)), *lacks))
    if lacks:  # nothing of it is of use
        return replace(tls, lacking=lacking)
    certificates, roots = (None if name in found else name for name in (tls.certificates, tls.roots))
    return replace(
        tls, certificate=certificate, validation=validation, certificates=certificates, roots=roots
    )


def _unusable(name: SecretName, secret: Secret | str | None) -> str:
    """Why it cannot be taken, in words; "" where it can."""
    called = f"secret {name.name!r}"
    if not isinstance(secret, Secret):
        return f"{called} {secret}"
    if secret.kind is not name.kind:
        return f"{called} is no {name.kind}"
    return f"{called} has {secret.unsupported}" if secret.unsupported else ""


def merged(own: Validation | None, other: Validation) -> Validation:
    """`other` merged into `own`."""
    if own is None:
        return other
    sans = tuple(dict.fromkeys(own.sans + other.sans))
    if any(
        san.kind is not SanKind.ANY for san in sans
    ):  # the field of before does not count beside the typed one
        sans = tuple(san for san in sans if san.kind is not SanKind.ANY)
    roots, domains = other.roots or own.roots, other.domains or own.domains
    return Validation(
        roots=roots,
        domains=domains,
        system=(own.system or other.system) and not (roots or domains),
        sans=sans,
        hashes=tuple(dict.fromkeys(own.hashes + other.hashes)),
        spki=tuple(dict.fromkeys(own.spki + other.spki)),
        crl=other.crl or own.crl,
        crl_leaf=own.crl_leaf or other.crl_leaf,
        untrusted=own.untrusted or other.untrusted,
        expired=own.expired or other.expired,
        depth=own.depth if other.depth is None else other.depth,
    )


def unsound(validation: Validation | None, *, sent_name: bool = False) -> str:
    """Why it verifies nothing though it seems to, in words that follow its name; "" where it does not: without a CA names,
    revocations and dates say nothing (Envoy refuses such, too). ``sent_name``: the name that was sent must be in the certificate.
    """
    if validation is not None and (validation.roots or validation.domains or validation.system):
        return ""
    if sent_name:
        return "has no CA, and the name that was sent is to be in the certificate"
    if validation is None:
        return ""
    if validation.sans:
        return "has names to look for and no CA: anybody could have them in a certificate"
    if validation.crl:
        return "has a revocation list and no CA"
    return "lets certificates expire and has no CA" if validation.expired else ""
