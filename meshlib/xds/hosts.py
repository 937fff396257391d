"""Route configurations by virtual host: what each names, which one a host has, and what of a new one can hold already.

A route configuration may be for many hosts, and may name clusters for one of them that never come. So it is taken into
force host by host, and one that is not complete holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from meshlib.model.route import Forward, RouteConfiguration, VirtualHost

__all__ = ["Named", "best_host", "clusters_of", "merge", "named"]


@dataclass(frozen=True, slots=True)
class Named:
    """A virtual host and the clusters that its routes name."""

    host: VirtualHost
    clusters: frozenset[str]


def clusters_of(host: VirtualHost) -> frozenset[str]:
    """Every cluster that a route of `host` may send a call to. Mirrors are not waited for: no answer depends on one."""
    found: set[str] = set()
    for route in host.routes:
        action = route.action
        if isinstance(action, Forward):
            found.add(action.cluster)
            found.update(entry.cluster for entry in action.weighted)
    found.discard("")
    return frozenset(found)


def named(config: RouteConfiguration, before: Iterable[Named] = ()) -> tuple[Named, ...]:
    """The hosts of `config`, in order; those that are in `before` (as the same values) are not read again."""
    known = {id(item.host): item for item in before}
    return tuple(known.get(id(host)) or Named(host, clusters_of(host)) for host in config.virtual_hosts)


def merge(
    new: RouteConfiguration,
    hosts: tuple[Named, ...],
    old: RouteConfiguration | None,
    *,
    whole: bool,
    ready: Callable[[str], bool],
) -> tuple[RouteConfiguration | None, bool]:
    """(what can be in force now, whether that is `new` itself).

    The domains of a host whose clusters are not all `ready` keep what `old` has for them. Those that are in no `old`
    wait; until there was once a `whole` configuration, no wildcard may answer for them meanwhile. None: there was no
    `old`, and nothing of `new` can be in force yet.
    """
    complete = [all(ready(name) for name in item.clusters) for item in hosts]
    if all(complete):
        return new, True
    former = {domain.lower(): host for host in (old.virtual_hosts if old else ()) for domain in host.domains}
    kept: list[VirtualHost] = []
    waiting: list[str] = []
    for item, fine in zip(hosts, complete, strict=True):
        if fine:
            kept.append(item.host)
            continue
        own = [domain.lower() for domain in item.host.domains]
        kept.extend(_as_before(own, former))
        waiting.extend(domain for domain in own if domain not in former)
    if not whole and waiting:
        kept = [left for host in kept if (left := _held_back(host, waiting)) is not None]
    if not kept and old is None:
        return None, False
    return replace(new, virtual_hosts=tuple(kept)), False


def _as_before(domains: list[str], former: dict[str, VirtualHost]) -> list[VirtualHost]:
    """The former virtual hosts of `domains`, for these domains alone."""
    owners = {id(former[domain]): former[domain] for domain in domains if domain in former}
    wanted = set(domains)
    found = (_only(host, lambda domain: domain.lower() in wanted) for host in owners.values())
    return [host for host in found if host is not None]


def _held_back(host: VirtualHost, waiting: list[str]) -> VirtualHost | None:
    return _only(host, lambda domain: not _covers(domain, waiting))


def _only(host: VirtualHost, keep: Callable[[str], bool]) -> VirtualHost | None:
    """`host` with the domains that are to be kept: itself if that is all of them, None if it is none."""
    left = tuple(domain for domain in host.domains if keep(domain))
    if not left:
        return None
    return host if len(left) == len(host.domains) else replace(host, domains=left)


def _covers(pattern: str, domains: Iterable[str]) -> bool:
    """Whether a wildcard would also answer for one of `domains`."""
    if "*" not in pattern:
        return False
    pattern = pattern.lower()
    start, _, end = pattern.partition("*")
    for domain in (domain.lower() for domain in domains):
        if domain == pattern:
            continue
        bare = domain.strip("*")
        if (start and bare.startswith(start)) or (end and bare.endswith(end)) or pattern == "*":
            return True
    return False


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
