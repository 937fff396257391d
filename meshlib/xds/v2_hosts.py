"""Virtual hosts that share a domain, made one, as xDS v2 servers send them; see `merge_virtual_hosts`."""

from __future__ import annotations

from meshlib.xds.schema import WireMessage

__all__ = ["merge_virtual_hosts"]

#: Hosts whose domains overlap in ever other ways would be copied as often as there are ways: what comes of them is at most so many
#: times as large as what they were.
_MOST_GROWTH = 10


def merge_virtual_hosts(routes: WireMessage) -> bool:
    """Gives each domain one virtual host, with the routes of all that had it, the most specific first: the longest path or
    prefix, then the most headers, then the order of arrival. Kato makes a virtual host of each dependency and prefix, and
    relies on no order among them.

    Where hosts of one domain differ in anything but their routes, or where so much would come of it that it is an attack, nothing
    is merged: who decodes them refuses that. Whether anything changed.
    """
    owners: dict[str, list[int]] = {}
    spelled: dict[str, str] = {}
    for index, host in enumerate(routes.virtual_hosts):
        for domain in dict.fromkeys(str(each).lower() for each in host.domains):
            owners.setdefault(domain, []).append(index)
        for domain in host.domains:
            spelled.setdefault(str(domain).lower(), str(domain))
    shared = {tuple(found) for found in owners.values() if len(found) > 1}
    if not shared or any(not _alike(routes, those) for those in shared):
        return False
    groups: dict[tuple[int, ...], list[str]] = {}
    for domain, found in owners.items():
        groups.setdefault(tuple(found), []).append(spelled[domain])
    sizes = [host.ByteSize() for host in routes.virtual_hosts]
    if sum(sizes[index] for those in groups for index in those) > _MOST_GROWTH * sum(sizes):
        return False
    made = [_merged(routes, those, domains) for those, domains in groups.items()]
    del routes.virtual_hosts[:]
    routes.virtual_hosts.extend(made)
    return True


def _alike(routes: WireMessage, those: tuple[int, ...]) -> bool:
    """Whether these hosts say the same but for their names, domains and routes."""
    bare = set()
    for index in those:
        host = type(routes.virtual_hosts[index])()
        host.CopyFrom(routes.virtual_hosts[index])
        for field in ("name", "domains", "routes"):
            host.ClearField(field)
        bare.add(host.SerializeToString(deterministic=True))
    return len(bare) == 1


def _merged(routes: WireMessage, those: tuple[int, ...], domains: list[str]) -> WireMessage:
    first = routes.virtual_hosts[those[0]]
    made: WireMessage = type(first)()
    made.CopyFrom(first)
    made.ClearField("domains")
    made.domains.extend(domains)
    if len(those) > 1:
        found = [route for index in those for route in routes.virtual_hosts[index].routes]
        made.ClearField("routes")
        made.routes.extend(sorted(found, key=_specificity))
    return made


def _specificity(route: WireMessage) -> tuple[int, int]:
    """Smaller is more specific. A regular expression stands with the whole paths: who writes one means it."""
    match = route.match
    which = match.WhichOneof("path_specifier")
    length = 1 << 20 if which not in ("prefix", "path_separated_prefix") else len(getattr(match, which))
    return -length, -len(match.headers)
