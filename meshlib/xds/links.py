"""The clusters of a graph, each linked with its endpoints and with its secrets (`meshlib.xds.sds`).

    state of a cluster    linked                                          ready  calls to it
    --------------------  ----------------------------------------------  -----  ----------------------------
    nothing known         none                                            no     wait
    its endpoints or its  as before: old settings with what these name    if it was linked before (CA-08); else they wait
    secrets lack
    all there             the newest                                      yes    go
    a secret will not     the newest, closed                              yes    fail
    come
    does not exist        none                                            yes    fail (503), as in Envoy
    deleted, and only     as it was: what names it is being replaced      yes    go (CA-03)
    named by versions
    that newer replace
    deleted just now      as it was: what replaces it may be on its way   yes    go
    no endpoints exist    the newest, with nobody in it                   yes    fail
    an aggregate          see `aggregates`

"Ready" is about updates: whether a route that names the cluster may come into force. What the answer to a wildcard does
not have is not ready as long as it may still come with a later one (it has 15 s), but calls need not wait for it.

Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from meshlib.core.trust import alike
from meshlib.core.trust import named as secrets_of
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Assignment
from meshlib.model.snapshot import Part
from meshlib.model.tls import Secret, SecretFrom
from meshlib.xds.aggregates import Aggregates, Parent, reach
from meshlib.xds.cache import Resources
from meshlib.xds.names import federated
from meshlib.xds.sds import Secrets

__all__ = ["Links"]

# Of what a linked cluster was made: the cluster as it was sent, its assignment, why there is nobody in it, and its secrets.
_Parts = tuple[Cluster, Assignment | None, str, tuple[Secret | str | None, ...]]


class Links:
    """``clusters``: name → linked value; a value that did not change is the same object. ``lacking``: the others that are
    named, or that wait for their endpoints or secrets: why, in words; ``""`` while they may come. ``awaited``: of the latter, where secrets
    lack, which. ``missing``: those that are named
    and not in the cache. ``all_of_them``: clusters are wanted whether or not a route names them (a wildcard
    subscription). ``superseded`` tells of a name whether all who name it are being replaced. ``leaving``: clusters that
    were deleted just now and are named; who keeps the time takes them out, and refreshes them. ``identified``: those of ``clusters``
    that name secrets of the process's own identity. ``generation`` grows when something else is to be asked for than before.
    ``give_way`` is called at each look at a cluster.
    """

    __slots__ = (
        "_aggregates",
        "_all",
        "_cache",
        "_deleted",
        "_eds",
        "_follows",
        "_looking",
        "_made",
        "_ready",
        "_secrets",
        "_superseded",
        "_users",
        "awaited",
        "clusters",
        "generation",
        "give_way",
        "identified",
        "lacking",
        "leaving",
        "missing",
    )

    def __init__(
        self,
        cache: Resources,
        *,
        all_of_them: bool,
        superseded: Callable[[str], bool],
        give_way: Callable[[], object],
    ) -> None:
        self._cache = cache
        self.give_way = give_way
        self._all = all_of_them
        self._superseded = superseded
        self._users: dict[str, set[object]] = {}
        self._aggregates = Aggregates()
        self._looking: set[str] = set()  # aggregates whose clusters are being taken or let go
        self._eds: dict[str, set[str]] = {}
        self._follows: dict[str, frozenset[str]] = {}
        self._secrets = Secrets(cache)
        self._made: dict[str, _Parts] = {}
        self._deleted: dict[str, Cluster] = {}  # named still: as they were last linked
        self._ready: set[str] = set()
        self.clusters: dict[str, Cluster] = {}
        self.awaited: dict[str, str] = {}
        self.identified: set[str] = set()
        self.lacking: dict[str, str] = {}
        self.leaving: set[str] = set()
        self.missing: set[str] = set()
        self.generation = 0

    # --- who names a cluster

    @property
    def wanted(self) -> frozenset[str]:
        """Clusters that somebody names."""
        return frozenset(self._users)

    @property
    def expected(self) -> frozenset[str]:
        """Of those the ones that a list of all should bring; names of an authority's all, since another server may have them."""
        return frozenset(self.missing).union(filter(federated, self._users))

    @property
    def endpoints(self) -> frozenset[str]:
        """Names of the load assignments that are wanted."""
        return frozenset(self._eds)

    def use(self, name: str, user: object) -> None:
        """`user` names the cluster from now on."""
        self.give_way()
        users = self._users.get(name)
        if users is None:
            self._users[name] = {user}
            self.generation += 1
            self.refresh(name)
        else:
            users.add(user)
            if self._aggregates.known(name):
                self.refresh(name)

    def release(self, name: str, user: object) -> None:
        """`user` does not name the cluster any more."""
        self.give_way()
        users = self._users.get(name)
        if users is not None:
            users.discard(user)
            if not users:
                del self._users[name]
                self.generation += 1
                self.refresh(name)
            elif self._aggregates.known(name):
                self.refresh(name)

    def users(self, name: str) -> frozenset[object]:
        """Who names the cluster."""
        return frozenset(self._users.get(name, ()))

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets that are wanted."""
        return self._secrets.names

    def touched(self, changed: Mapping[str, set[str]]) -> list[str]:
        """Clusters that have something of what changed (names by type), in the order in which they are to be looked at."""
        found = set(changed.get("cluster", ()))
        found.update(*(self._eds.get(name, ()) for name in changed.get("endpoint", ())))
        found.update(*map(self._secrets.users, changed.get("secret", ())))
        return [*found, *self.above(found)]

    def above(self, names: Iterable[str]) -> set[str]:
        """The aggregates that lead to any of ``names``."""
        return self._aggregates.above(names)

    def leads(self, parent: Parent, name: str) -> bool:
        """Whether the newest version of an aggregate leads to the cluster."""
        return self._aggregates.leads(parent.name, name)

    # --- how it stands

    def ready(self, name: str) -> bool:
        """Whether a route that names it may come into force."""
        self.give_way()
        made = self.clusters.get(name)
        if made is None:
            return bool(self._cache.failed("cluster", name))
        return all(map(self.ready, made.leaves))

    def lacks(self, name: str) -> str:
        """What keeps calls from the cluster, in words; "" if nothing does."""
        if name in self.clusters:
            return ""
        failed = self._cache.failed("cluster", name)
        if failed:
            return f"cluster {name!r} {failed}"
        latest = self._cache.value("cluster", name)
        if not isinstance(latest, Cluster):
            return f"cluster {name!r} has not come yet"
        if latest.discovery is Discovery.AGGREGATE:
            return next(map(self.lacks, self._awaited(latest)), "")
        if latest.discovery is Discovery.EDS and self._assignment(latest.eds_name)[0] is None:
            return f"the endpoints {latest.eds_name!r} of cluster {name!r} have not come yet"
        return f"cluster {name!r} {self._awaits_secrets(latest)}"

    def _awaits_secrets(self, latest: Cluster) -> str:
        """What it waits for once its endpoints are there, in words; "" if that is nothing."""
        names = self._secrets.lacking(latest)
        some = "secret" if len(names) == 1 else "secrets"
        return f"waits for the {some} {', '.join(map(repr, names))}" if names else ""

    def told(self, part: Part) -> Part:
        """The part with the clusters as they stand."""
        return replace(
            part,
            clusters=dict(self.clusters),
            lacking=dict(self.lacking),
            awaited=dict(self.awaited),
            identified=frozenset(self.identified),
        )

    @property
    def deleted(self) -> tuple[str, ...]:
        """Clusters that are named and were deleted: what calls to them meet depends on who names them."""
        return tuple(self._deleted)

    def refresh(self, name: str) -> tuple[bool, bool]:
        """Looks at the cluster again: (its linked value or what calls to it meet changed, it became ready or unready)."""
        if name in self._looking:  # two aggregates that name each other
            return False, False
        self.give_way()
        latest = self._sent(name)
        wanted = self._all or name in self._users
        others = self._hold(name, latest if wanted else None)
        before = (self.clusters.get(name), self.lacking.get(name), self.awaited.get(name, ""))
        last = self._deleted.pop(name, None)
        made = (
            self._link(name, latest, before[0] if latest is not None else before[0] or last)
            if wanted
            else None
        )
        if made is None or latest is not None:
            self.leaving.discard(name)
        else:
            self._deleted[name] = made
            if last is None:
                self.leaving.add(name)
            elif name not in self.leaving and not self._superseded(name):
                made = None
        self._keep(name, made)
        others |= self._let_go(name, made)
        self._follow(name, (latest, self._base(name, made)) if wanted and latest is not None else ())
        named = name in self._users
        if made is None and wanted and (named or latest is not None):
            self.lacking[name] = "" if latest is not None else self._cache.missing("cluster", name)
        else:
            self.lacking.pop(name, None)
        words = self._awaits_secrets(latest) if latest is not None and made is None and wanted else ""
        if words:
            self.awaited[name] = words
        else:
            self.awaited.pop(name, None)
        missing = latest is None and named
        if missing != (name in self.missing):
            (self.missing.add if missing else self.missing.discard)(name)
            self.generation += 1
        ready = self.ready(name)
        changed = ready != (name in self._ready)
        if changed:
            (self._ready.add if ready else self._ready.discard)(name)
        return others or before[0] is not made or before[1:] != (self.lacking.get(name), words), changed

    def _sent(self, name: str) -> Cluster | None:
        """As the control plane sent it last."""
        found = self._cache.value("cluster", name)
        return found if isinstance(found, Cluster) else None

    def _hold(self, name: str, latest: Cluster | None) -> bool:
        """Keeps wanted what an aggregate leads to, in its newest version and in the one in force. True if that is more than before."""
        made = reach(latest, self._sent) if latest is not None and latest.children else None
        old = self.clusters.get(name)
        if made is None and not self._aggregates.known(name) and (old is None or not old.leaves):
            return False
        self._aggregates.follow(name, made)
        by_others = any(not isinstance(user, Parent) for user in self._users.get(name, ()))
        names: frozenset[str] = frozenset()
        if by_others or (self._all and latest is not None):
            names = frozenset((*(made.names if made else ()), *(old.leaves if old else ()))) - {name}
        return self._holds(name, names)

    def _let_go(self, name: str, made: Cluster | None) -> bool:
        """The same once it is linked: what the version that was in force led to is not kept any more."""
        held = self._aggregates.held(name)
        if not held:
            return False
        newest = self._aggregates.reach(name)
        kept = (*(newest.names if newest else ()), *(made.leaves if made else ()))
        return self._holds(name, held.intersection(kept))

    def _holds(self, name: str, names: frozenset[str]) -> bool:
        come, gone = self._aggregates.hold(name, names)
        self._looking.add(name)
        for each in come:
            self.use(each, Parent(name))
        for each in gone:
            self.release(each, Parent(name))
        self._looking.discard(name)
        return bool(come or gone)

    def _awaited(self, latest: Cluster) -> list[str]:
        """Of the leaves of an aggregate those that may come."""
        return [leaf for leaf in reach(latest, self._sent).leaves if self.lacking.get(leaf) == ""]

    def _keep(self, name: str, made: Cluster | None) -> None:
        if made is not None:
            self.clusters[name] = made
            if secrets_of(made, SecretFrom.IDENTITY):
                self.identified.add(name)
            else:
                self.identified.discard(name)
            return
        self.clusters.pop(name, None)
        self.identified.discard(name)
        if name not in self._deleted:
            self._made.pop(name, None)

    def _link(self, name: str, latest: Cluster | None, old: Cluster | None) -> Cluster | None:
        if latest is None:  # deleted: where it is kept, so are its endpoints, and they are not asked for
            return old if name in self._users else None
        return self._complete(name, latest, old) or self._as_before(name, old)

    def _as_before(self, name: str, old: Cluster | None) -> Cluster | None:
        if old is None or name not in self._made:
            return old
        return self._complete(name, self._made[name][0], old) or old

    def _complete(self, name: str, base: Cluster, old: Cluster | None) -> Cluster | None:
        """`base` with its load assignment and its secrets: `old` itself if it is that already, None if one of them lacks."""
        if base.discovery is Discovery.AGGREGATE:
            return self._aggregate(name, base, old)
        linked, why, assignment = base, "", base.assignment
        if base.discovery is Discovery.EDS:
            assignment, why = self._assignment(base.eds_name)
            if assignment is None:
                return None
        parts = (base, assignment, why, self._secrets.of(base))
        known = self._made.get(name)
        if old is not None and known is not None and _same(parts, known):
            return old
        if base.discovery is Discovery.EDS:
            linked = replace(base, assignment=assignment, unassigned=why)
        made = self._secrets.complete(linked)
        if made is base:  # nothing was put together
            self._made.pop(name, None)
        elif made is not None:
            self._made[name] = parts
        return made

    def _aggregate(self, name: str, base: Cluster, old: Cluster | None) -> Cluster | None:
        """`base` with its leaves: `old` itself if it is that already, None while it is not to be in force."""
        found = reach(base, self._sent)
        if (old is None and self._awaited(base)) or (
            old is not None and not all(map(self.ready, found.leaves))
        ):
            return None
        self._made.pop(name, None)
        made = replace(base, leaves=found.leaves, unassigned=found.trouble)
        return old if old == made and old.version == made.version else made

    def _base(self, name: str, made: Cluster | None) -> Cluster | None:
        """What is in force as it was sent."""
        return self._made[name][0] if name in self._made else made

    def _assignment(self, name: str) -> tuple[Assignment | None, str]:
        """What is known of it; and where that is nobody at all, why, in words."""
        found = self._cache.value("endpoint", name)
        if isinstance(found, Assignment):
            return found, ""
        failed = self._cache.failed("endpoint", name)
        return (_nobody(name), f"its assignment {name!r} {failed}") if failed else (None, "")

    def _follow(self, name: str, clusters: tuple[Cluster | None, ...]) -> None:
        """Keeps the indexes of load assignments and secrets: those of the newest version, and of the one in force until then."""
        self.generation += self._secrets.follow(name, clusters)
        eds = frozenset(
            each.eds_name for each in clusters if each is not None and each.discovery is Discovery.EDS
        )
        before = self._follows.get(name, frozenset())
        if eds == before:
            return
        self.generation += 1
        for gone in before - eds:
            self._eds[gone].discard(name)
            if not self._eds[gone]:
                del self._eds[gone]
        for new in eds - before:
            self._eds.setdefault(new, set()).add(name)
        if eds:
            self._follows[name] = eds
        else:
            self._follows.pop(name, None)


def _same(parts: _Parts, others: _Parts) -> bool:
    return (
        parts[0] is others[0]
        and parts[1] is others[1]
        and parts[2] == others[2]
        and len(parts[3]) == len(others[3])
        and all(map(alike, parts[3], others[3]))
    )


@lru_cache(maxsize=4096)
def _nobody(name: str) -> Assignment:
    """An assignment without endpoints; the same object each time, so that nothing seems to change."""
    return Assignment(name)
