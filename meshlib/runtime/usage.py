"""What is asked of a name of the target view before it is let go: whether a call of it goes on, and whether anybody knows it.

Asked by the worker, now and then, so that a call says no more than that it begins (:mod:`meshlib.runtime.interest`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.snapshot import Fate
from meshlib.runtime.interest import UNKNOWN
from meshlib.xds.hosts import clusters_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from meshlib.model.snapshot import Snapshot
    from meshlib.runtime.clusters import Clusters
    from meshlib.runtime.interest import Interest, Wanted

__all__ = ["unknown", "unused"]

#: Seconds in which a name may be answered (EX-01); after that it is nobody's, whether or not the control plane said so.
_ANSWERED = 15.0


def unused(
    interest: Interest,
    snapshot: Snapshot,
    clusters: Clusters,
    held: Collection[str],
    now: float,
    *,
    waiting: bool,
) -> tuple[str, ...]:
    """Takes out of ``interest`` what no call uses any more: the names. ``held``: names by which somebody keeps connections;
    ``waiting``: somebody waits for an answer. None while a control plane is away: what is let go then could not be had again.
    """
    if any(part.unreached for part in snapshot.parts):
        return ()

    def goes_on(name: str) -> bool:
        if name in held or _under_way(name, snapshot, clusters):
            return True
        return waiting and not any(name in part.targets or name in part.absent for part in snapshot.parts)

    return interest.sweep(now, goes_on)


def unknown(interest: Interest, snapshot: Snapshot, now: float) -> tuple[str, ...]:
    """Takes out of ``interest`` what nobody knows, where that is too much: the names."""
    if len(interest) <= UNKNOWN:
        return ()
    return interest.trim(now, lambda wanted: _is_unknown(wanted, snapshot, now))


def _is_unknown(wanted: Wanted, snapshot: Snapshot, now: float) -> bool:
    for part in snapshot.parts:
        if wanted.name in part.targets:
            return False
        absence = part.absent.get(wanted.name)
        if absence is not None:
            return absence.fate is not Fate.UNUSABLE
    return now - wanted.since >= _ANSWERED


def _under_way(name: str, snapshot: Snapshot, clusters: Clusters) -> bool:
    """Whether there is a call at a cluster that ``name`` leads to. It may be another name's, where they share one."""
    found = (clusters.get(*key) for key in _clusters(name, snapshot))
    return any(live is not None and live.active for live in found)


def _clusters(name: str, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    for part in snapshot.parts:
        listener = part.targets.get(name)
        http = listener.http if listener is not None else None
        if http is not None and http.routes is not None:
            for host in http.routes.virtual_hosts:
                yield from ((part.source, cluster) for cluster in clusters_of(host))
