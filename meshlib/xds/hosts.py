"""Route configurations by virtual host: what each names, which one a host has, and what of a new one can hold already.

A route configuration may be for many hosts, and may name clusters for one of them that never come. So it is taken into
force host by host, and one that is not complete holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from meshlib.core.domains import DomainIndex
from meshlib.model.route import Forward, RouteConfiguration, VirtualHost

__all__ = ["Named", "best_host", "clusters_of", "merge", "mirrored", "named"]


@dataclass(frozen=True, slots=True)
class Named:
    """A virtual host, the clusters that its routes name, and those that its calls are mirrored to, which are asked for and not waited for."""

    host: VirtualHost
    clusters: frozenset[str]
    mirrors: frozenset[str] = frozenset()


def clusters_of(host: VirtualHost) -> frozenset[str]:
    """Every cluster that a route of `host` may send a call to. Mirrors are not among them: no answer depends on one."""
    found: set[str] = set()
    for route in host.routes:
        action = route.action
        if isinstance(action, Forward):
            found.add(action.cluster)
            found.update(entry.cluster for entry in action.weighted)
    found.discard("")
    return frozenset(found)


def read(host: VirtualHost) -> Named:
    """`host`, with what it names."""
    found = [mirror.cluster for mirror in host.mirrors]
    for route in host.routes:
        if isinstance(route.action, Forward) and route.action.mirrors:
            found += [mirror.cluster for mirror in route.action.mirrors]
    return Named(host, clusters_of(host), frozenset(filter(None, found)))


def mirrored(config: RouteConfiguration, hosts: Iterable[Named] | None = None) -> frozenset[str]:
    """The clusters that calls by `config` are mirrored to. `hosts`: its virtual hosts, where they were read."""
    hosts = map(read, config.virtual_hosts) if hosts is None else hosts
    own = [mirror.cluster for mirror in config.mirrors if mirror.cluster]
    return frozenset(own).union(*[item.mirrors for item in hosts if item.mirrors])


def named(
    config: RouteConfiguration, before: Iterable[Named] = (), give_way: Callable[[], object] = bool
) -> tuple[Named, ...]:
    """The hosts of `config`, in order; those that are in `before` (as the same values) are not read again. `give_way` is called
    at each of the others.
    """
    known = {id(item.host): item for item in before}
    found = []
    for host in config.virtual_hosts:
        item = known.get(id(host))
        if item is None:
            give_way()
            item = read(host)
        found.append(item)
    return tuple(found)


def merge(
    new: RouteConfiguration,
    hosts: tuple[Named, ...],
    old: RouteConfiguration | None,
    *,
    ready: Callable[[str], bool],
) -> tuple[RouteConfiguration, bool]:
    """(what can be in force now, whether that is `new` and all of it `ready`).

    The domains of a host whose clusters are not all `ready` are served as `old` serves them, be it by a wildcard. It is
    in force at once where it lacks no more than what served them lacked, or where nothing did: then calls to what is not
    there wait or fail.
    """
    complete = [all(ready(name) for name in item.clusters) for item in hosts]
    if all(complete):
        return new, True
    if old is None or old is new:
        return new, False
    former = DomainIndex((domain, host) for host in old.virtual_hosts for domain in host.domains)
    kept: list[VirtualHost] = []
    for item, fine in zip(hosts, complete, strict=True):
        kept.extend((item.host,) if fine else _until_complete(item, former, ready, old.version))
    return replace(new, virtual_hosts=tuple(kept)), False


def _until_complete(
    item: Named, former: DomainIndex[VirtualHost], ready: Callable[[str], bool], version: str
) -> list[VirtualHost]:
    """What serves the domains of a host: who served them, or who would have; itself for those that nobody would. `version`: of the
    former.
    """
    host = item.host
    owners: dict[int, tuple[VirtualHost, list[str]]] = {}
    for domain in host.domains:
        owner = former.find(domain) or host
        owners.setdefault(id(owner), (owner, []))[1].append(domain)
    before = frozenset[str]().union(
        *(clusters_of(owner) for owner, _ in owners.values() if owner is not host)
    )
    if all(ready(name) or name in before for name in item.clusters):
        return [host]
    return [
        owner if owner is host else replace(owner, domains=tuple(domains), version=owner.version or version)
        for owner, domains in owners.values()
    ]


def best_host(config: RouteConfiguration, authority: str) -> tuple[VirtualHost, str] | None:
    """The virtual host that a call to `authority` has, and the domain by which it has it (VH-01 to VH-03)."""
    wanted = authority.lower()
    if config.ignore_port and wanted.rpartition(":")[2].isdigit():
        wanted = wanted.rpartition(":")[0]
    best: tuple[VirtualHost, str] | None = None
    rank = (-1, 0)
    for host in config.virtual_hosts:
        for domain in host.domains:
            found = _rank(domain.lower(), wanted)
            if found is not None and found > rank:
                best, rank = (host, domain.lower()), found
    return best


def _rank(domain: str, wanted: str) -> tuple[int, int] | None:
    if domain == wanted:
        return (3, 0)
    if domain == "*":
        return (0, 0)
    if len(wanted) >= len(domain):
        if domain.startswith("*") and wanted.endswith(domain[1:]):
            return (2, len(domain))
        if domain.endswith("*") and wanted.startswith(domain[:-1]):
            return (1, len(domain))
    return None
