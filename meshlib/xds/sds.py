"""The secrets that clusters name and the control plane has (SDS), and which clusters those are.

    state of a secret                 the cluster that names it
    --------------------------------  ---------------------------------------------------------------------------
    asked for, for 15 s at most       is awaited, as it is for its endpoints: calls wait; an older version of it is in force
    here                              has it (`meshlib.core.trust`)
    a newer one is here               has the newer: only its users are made anew
    refused, or deleted; an older     has the older (SD-03): Envoy, too, keeps it
    one is here
    refused, or known not to come     is in force, and closed: calls fail, and are told why (SD-02)

Secrets of other origins are not asked for here: `meshlib.sources.merge` completes the clusters that name them.

Not thread-safe: it belongs to a graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshlib.core.trust import completed, named
from meshlib.model.tls import Secret, SecretFrom, SecretName

if TYPE_CHECKING:
    from meshlib.model.cluster import Cluster
    from meshlib.xds.cache import Resources

__all__ = ["Secrets"]

_HERE = SecretFrom.CONTROL_PLANE


class Secrets:
    """Which secrets are named, and by which clusters."""

    __slots__ = ("_cache", "_of", "_users")

    def __init__(self, cache: Resources) -> None:
        self._cache = cache
        self._users: dict[str, set[str]] = {}
        self._of: dict[str, frozenset[str]] = {}

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
        now = frozenset(secret.name for each in clusters if each is not None for secret in named(each, _HERE))
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
        return True

    def of(self, cluster: Cluster) -> tuple[Secret | str | None, ...]:
        """What is known of those that it names, in a fixed order: the same objects, or equal words, as long as that is the same."""
        return tuple(map(self._find, sorted(named(cluster, _HERE), key=_order)))

    def lacking(self, cluster: Cluster) -> tuple[str, ...]:
        """The names of those that it waits for."""
        return tuple(
            each.name for each in sorted(named(cluster, _HERE), key=_order) if self._find(each) is None
        )

    def complete(self, cluster: Cluster) -> Cluster | None:
        """The cluster with them; None as long as one of them may yet come."""
        return completed(cluster, self._find, _HERE)

    def _find(self, secret: SecretName) -> Secret | str | None:
        found = self._cache.value("secret", secret.name)
        if isinstance(found, Secret):
            return found
        return self._cache.failed("secret", secret.name) or None


def _order(secret: SecretName) -> tuple[str, str]:
    return secret.name, secret.kind
