"""Clusters that name secrets of the process's identity, linked with them.

What is made of a cluster stays the same object as long as the cluster and its secrets are the same objects, so that a rotation changes
those that use what was rotated and no others, and what it is linked with of TLS stays the same while only its endpoints change.

    its secrets                     the cluster
    ------------------------------  ----------------------------------------------------------------
    all known (or known not to      linked; where one will not come, closed, in words
    come)
    one may yet come                as it was linked before; where it never was, calls wait for it

Not thread-safe: it belongs to a merge, which runs on the worker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.core.trust import alike, completed, named
from meshlib.model.snapshot import Linkage
from meshlib.model.tls import SecretFrom, SecretKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.cluster import Cluster
    from meshlib.model.snapshot import Part
    from meshlib.model.tls import Secret, SecretName

__all__ = ["Linker"]

_Found = dict["SecretName", "Secret | str | None"]


@dataclass(frozen=True, slots=True)
class _Made:
    """``raw``: as its source said it; ``found``: the secrets that it names; ``cluster``: what was made of both, or before."""

    raw: Cluster
    found: _Found
    cluster: Cluster | None


class Linker:
    """``find``: a secret of identity, or why it will not come; None: it may yet come. ``secrets``: all that are there. ``give_way`` is
    called at each cluster that is looked at.
    """

    def __init__(
        self,
        find: Callable[[SecretName], Secret | str | None],
        secrets: Callable[[], Mapping[SecretName, Secret]],
        give_way: Callable[[], object] = bool,
    ) -> None:
        self._give_way = give_way
        self._find = find
        self._secrets = secrets
        self._made: dict[str, dict[str, _Made]] = {}
        self._whole: dict[str, Part] = {}

    @property
    def names(self) -> frozenset[SecretName]:
        """All that are named."""
        return frozenset(
            name for clusters in self._made.values() for made in clusters.values() for name in made.found
        )

    def part(self, part: Part) -> Part:
        """``part``, which is another than before, with its clusters linked. Only those that are others are looked at."""
        before = self._made.get(part.source, {})
        made: dict[str, _Made] = {}
        for name in part.identified:
            raw, known = part.clusters.get(name), before.get(name)
            if raw is not None:
                made[name] = known if known is not None and known.raw is raw else self._cluster(raw, known)
        return self._put(part, made)

    def again(self, part: Part) -> Part:
        """The same part once identity has something else; the same object as before where none of its clusters uses that."""
        before = self._made.get(part.source, {})
        made = {name: self._cluster(each.raw, each) for name, each in before.items()}
        if all(before[name] is each for name, each in made.items()):
            return self._whole.get(part.source, part)
        return self._put(part, made)

    def awaits(self, source: str, cluster: str) -> tuple[SecretName, ...]:
        """The secrets that keep a cluster from being there. Any thread: it reads what is swapped whole."""
        made = self._made.get(source, {}).get(cluster)
        if made is None or made.cluster is not None:
            return ()
        awaited = (name for name, found in made.found.items() if found is None)
        return tuple(sorted(awaited, key=lambda name: (name.kind is SecretKind.CA, name.name)))

    def drop(self, source: str) -> None:
        """A source says nothing any more."""
        self._made.pop(source, None)
        self._whole.pop(source, None)

    def _put(self, part: Part, made: dict[str, _Made]) -> Part:
        if not made:
            self.drop(part.source)
            return part
        clusters, lacking = dict(part.clusters), dict(part.lacking)
        for name, each in made.items():
            if each.cluster is None:
                del clusters[name]
                lacking[name] = ""
            else:
                clusters[name] = each.cluster
        linkage = Linkage(part, self._secrets())
        whole = replace(part, clusters=clusters, lacking=lacking, linkage=linkage)
        self._made[part.source] = made
        self._whole[part.source] = whole
        return whole

    def _cluster(self, raw: Cluster, known: _Made | None) -> _Made:
        self._give_way()
        found = {name: self._find(name) for name in named(raw, SecretFrom.IDENTITY)}
        old = known.cluster if known is not None else None
        same = known is not None and _same(found, known.found)
        if known is not None and same and raw is known.raw:
            return known
        if None in found.values():
            return _Made(raw, found, old)
        if known is not None and same and old is not None and _demands_alike(raw, known.raw):
            return _Made(raw, found, replace(raw, tls=old.tls, tls_matches=old.tls_matches))
        return _Made(raw, found, completed(raw, self._find, SecretFrom.IDENTITY))


def _same(one: _Found, other: _Found) -> bool:
    return one.keys() == other.keys() and all(alike(found, other[name]) for name, found in one.items())


def _demands_alike(one: Cluster, other: Cluster) -> bool:
    return one.tls is other.tls and one.tls_matches is other.tls_matches
