"""The secrets that clusters name (SDS), and what calls to a cluster are told of those that are not there.

    state of a secret             calls to a cluster that names it fail, and are told
    ----------------------------  -----------------------------------------------------------
    asked for                     that it has not come yet
    here, of the kind that it is  nothing of it (TLS with it is not there yet, and they are told that)
    to be
    here, of another kind         that it is no certificate, or no CA
    refused; an older one is      as of the older one (SD-03)
    here
    refused, or known not to      why
    come

No update waits for a secret, and neither does a call: a cluster that demands one is in force, and closed (SD-02).

Not thread-safe: it belongs to a graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.tls import Secret, SecretName

if TYPE_CHECKING:
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls
    from meshlib.xds.cache import Resources

__all__ = ["Secrets"]


class Secrets:
    """Which secrets are named, and by which clusters."""

    __slots__ = ("_cache", "_made", "_of", "_users")

    def __init__(self, cache: Resources) -> None:
        self._cache = cache
        self._users: dict[str, set[str]] = {}
        self._of: dict[str, frozenset[str]] = {}
        self._made: dict[str, tuple[Cluster, Cluster]] = {}  # as it came here, and as it went

    @property
    def names(self) -> frozenset[str]:
        """All that are wanted."""
        return frozenset(self._users)

    def users(self, name: str) -> frozenset[str]:
        """The clusters that name it."""
        return frozenset(self._users.get(name, ()))

    def follow(self, name: str, clusters: Iterable[Cluster | None]) -> bool:
        """Takes in what versions of a cluster name; whether others are wanted than before."""
        before = self._of.get(name, frozenset())
        now = frozenset(secret.name for each in clusters if each is not None for secret in _named(each))
        if now == before:
            return False
        for secret in now - before:
            self._users.setdefault(secret, set()).add(name)
        for secret in before - now:
            self._users[secret].discard(name)
            if not self._users[secret]:
                del self._users[secret]
        if now:
            self._of[name] = now
        else:
            del self._of[name]
            self._made.pop(name, None)
        return True

    def told(self, name: str, cluster: Cluster | None) -> Cluster | None:
        """The cluster with what is to be told of its secrets; the same object as long as that is the same."""
        if cluster is None or not _named(cluster):
            self._made.pop(name, None)
            return cluster
        came, went = self._made.get(name, (cluster, cluster))
        if cluster is not came and cluster is not went:
            came = went = cluster
        made = self._with_words(went)
        self._made[name] = (came, made)
        return made

    def _with_words(self, cluster: Cluster) -> Cluster:
        tls = self._worded(cluster.tls)
        matches = tuple((each, self._worded(each.tls)) for each in cluster.tls_matches)
        if tls is cluster.tls and all(found is each.tls for each, found in matches):
            return cluster
        return replace(
            cluster, tls=tls, tls_matches=tuple(replace(each, tls=found) for each, found in matches)
        )

    def _worded(self, tls: Tls | None) -> Tls | None:
        if tls is None or not tls.secrets:
            return tls
        lacking = "; ".join(filter(None, map(self._lacks, tls.secrets)))
        return tls if tls.lacking == lacking else replace(tls, lacking=lacking)

    def _lacks(self, secret: SecretName) -> str:
        """What is wrong with it, in words; "" if nothing is."""
        found = self._cache.value("secret", secret.name)
        if not isinstance(found, Secret):
            return f"secret {secret.name!r} {self._cache.failed('secret', secret.name) or 'has not come yet'}"
        if found.kind is not secret.kind:
            return f"secret {secret.name!r} is no {secret.kind}"
        return f"secret {secret.name!r} has {found.unsupported}" if found.unsupported else ""


def _named(cluster: Cluster) -> tuple[SecretName, ...]:
    own = cluster.tls.secrets if cluster.tls is not None else ()
    return own + tuple(
        secret for each in cluster.tls_matches if each.tls is not None for secret in each.tls.secrets
    )
