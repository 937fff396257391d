"""``[identity] verify = "always"``: connections that nobody was to be verified for are held to the system's roots and the name.

A control plane may demand TLS and say nothing of whom it is with, or that anybody may have signed the certificate; Envoy then accepts
whoever answers. What pins a certificate or a key verifies, and is left alone.

Not thread-safe: it belongs to a merge, which runs on the worker.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.tls import Validation

if TYPE_CHECKING:
    from meshlib.model.cluster import Cluster
    from meshlib.model.snapshot import Part
    from meshlib.model.tls import Tls

__all__ = ["Verifier"]


class Verifier:
    """What did not change since the last time is the same object as then."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, tuple[Cluster, Cluster]]] = {}
        self._parts: dict[str, tuple[Part, Part]] = {}

    def part(self, part: Part) -> Part:
        """``part``, whose clusters verify whom they call."""
        known = self._parts.get(part.source)
        if known is not None and known[0] is part:
            return known[1]
        before = self._made.get(part.source, {})
        made: dict[str, tuple[Cluster, Cluster]] = {}
        for name, cluster in part.clusters.items():
            if cluster.tls is not None or cluster.tls_matches:
                old = before.get(name)
                made[name] = old if old is not None and old[0] is cluster else (cluster, _held(cluster, old))
        self._made[part.source] = made
        others = {name: held for name, (cluster, held) in made.items() if held is not cluster}
        whole = replace(part, clusters={**part.clusters, **others}) if others else part
        self._parts[part.source] = part, whole
        return whole

    def drop(self, source: str) -> None:
        """A source says nothing any more."""
        self._made.pop(source, None)
        self._parts.pop(source, None)


def _held(cluster: Cluster, old: tuple[Cluster, Cluster] | None) -> Cluster:
    if old is not None and cluster.tls is old[0].tls and cluster.tls_matches is old[0].tls_matches:
        tls, matches = old[1].tls, old[1].tls_matches  # a pool is stale when they are other objects
    else:
        tls = _strict(cluster.tls)
        strict = [_strict(each.tls) for each in cluster.tls_matches]
        matches = tuple(
            each if made is each.tls else replace(each, tls=made)
            for each, made in zip(cluster.tls_matches, strict, strict=True)
        )
    if tls is cluster.tls and all(
        new is each for new, each in zip(matches, cluster.tls_matches, strict=True)
    ):
        return cluster
    return replace(cluster, tls=tls, tls_matches=matches)


def _strict(tls: Tls | None) -> Tls | None:
    if tls is None or not tls.unverified:
        return tls
    held = tls.validation or Validation()
    return replace(tls, validation=replace(held, untrusted=False, system=not (held.roots or held.domains)))
