"""Which world serves which target, and what comes of that: parts of the snapshot.

Theory. A target is served by the first world, in the order of preference, in which it waits for nothing: it has all that it names,
or is known not to exist. So one that the primary has given whole stays with the primary, whatever is asked elsewhere for another
(FB-05), and what takes its place comes into force whole. Where no world has a target whole, the first that has anything of it serves.
What an earlier process left counts only where no server has given as much: any live answer is better (CA-10). The listeners that were
made for an Envoy are one target in this.

Each world that serves anything is a part of its own, in which its routes find its clusters: two servers may have two clusters of
one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from meshlib.model.listener import Listener
from meshlib.model.snapshot import Absence, Part
from meshlib.xds.hosts import clusters_of, mirrored
from meshlib.xds.roots import tcp_clusters
from meshlib.xds.world import World

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True)
class Choice:
    """``parts``: the first world's, then those of the others that serve anything. ``serves``: the world of each target that is
    wanted; ``sidecar``: that of the listeners made for an Envoy.
    """

    parts: tuple[Part, ...]
    serves: Mapping[str, World]
    sidecar: World

    def with_what_was(self, before: Choice) -> Choice:
        """The same parts as before where they are equal, so that nothing is compiled anew."""
        known = {part.source: part for part in before.parts}
        parts = tuple(known[part.source] if known.get(part.source) == part else part for part in self.parts)
        return Choice(parts, self.serves, self.sidecar)


def choose(
    worlds: Sequence[World],
    targets: Mapping[str, Sequence[World]],
    envoys: Sequence[World],
    live: Callable[[World, str], bool],
    absent: Mapping[str, Absence],
) -> Choice:
    """``targets``: each that is wanted, with the worlds in its order of preference, ``envoys``: that of the listeners made for an Envoy.
    ``live``: whether the server that a world asks for a target (``""``: for those) has answered. ``absent``: why targets that wait
    will not come now.
    """
    waiting = {id(world): frozenset(world.graph.waiting()) for world in worlds}

    def settled(world: World, name: str) -> bool:
        if not name:
            return world.whole
        known = name in world.graph.part.targets or name in world.graph.part.absent
        return known and name not in waiting[id(world)]

    def there(world: World, name: str) -> bool:
        part = world.graph.part
        return name in part.targets if name else bool(part.sidecar) or part.listed

    def best(order: Sequence[World], name: str) -> World:
        found = [world for world in order if settled(world, name)] or [
            world for world in order if there(world, name)
        ]
        return next((world for world in found if live(world, name)), found[0] if found else order[0])

    serves = {name: best(order, name) for name, order in targets.items()}
    sidecar = best(envoys, "")
    first = _first(worlds[0], serves, sidecar)
    late = {name: why for name, why in absent.items() if name in waiting[id(serves[name])]}
    late = {name: why for name, why in late.items() if name not in serves[name].graph.part.targets}
    if late:
        first = replace(first, absent={**first.absent, **late})
    more = (_other(world, level, serves, sidecar) for level, world in enumerate(worlds) if level)
    return Choice((first, *(part for part in more if part is not None)), serves, sidecar)


def _first(world: World, serves: Mapping[str, World], sidecar: World) -> Part:
    """What is known of names stands here, whoever knows it: they are asked for once."""
    made = world.graph.part
    absent = {
        name: serves[name].graph.part.absent[name]
        for name in serves
        if name in serves[name].graph.part.absent
    }
    targets = {name: value for name, value in made.targets.items() if serves.get(name) is world}
    made = replace(made, targets=targets, absent=absent)
    if sidecar is not world:
        made = replace(made, sidecar=(), listed=sidecar.graph.part.listed)
    return made


def _other(world: World, level: int, serves: Mapping[str, World], sidecar: World) -> Part | None:
    part = world.graph.part
    targets = {name: value for name, value in part.targets.items() if serves.get(name) is world}
    if not targets and sidecar is not world:
        return None
    clusters, lacking = part.clusters, part.lacking
    if sidecar is not world:
        used = frozenset[str]().union(*map(_used, targets.values()))
        clusters = {name: value for name, value in clusters.items() if name in used}
        lacking = {name: why for name, why in lacking.items() if name in used}
    return replace(
        part,
        source=f"{part.source} {level}",
        targets=targets,
        absent={},
        sidecar=part.sidecar if sidecar is world else (),
        clusters=clusters,
        lacking=lacking,
        identified=part.identified & clusters.keys(),
        listed=False,
    )


def _used(listener: Listener) -> frozenset[str]:
    """The clusters that its chains name."""
    found = [chain.http.routes for chain in listener.chains if chain.http is not None]
    routes = [config for config in found if config is not None]
    hosts = (host for config in routes for host in config.virtual_hosts)
    return tcp_clusters(listener).union(*map(mirrored, routes), *map(clusters_of, hosts))
