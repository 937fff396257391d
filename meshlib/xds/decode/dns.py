"""How the names of a cluster are resolved: of which family, how often, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.model.address import Address
from meshlib.model.cluster import NameServers
from meshlib.xds.decode.address import numeric
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import number, seconds, unpacked
from meshlib.xds.schema import WireMessage, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLUSTER_FAMILIES", "DNS_FAMILIES", "Resolving", "name_servers", "resolving", "typed_servers"]

_CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
#: ``Cluster.DnsLookupFamily``, and the one that stands by itself.
CLUSTER_FAMILIES = {0: "auto", 1: "v4_only", 2: "v6_only", 3: "v4_preferred", 4: "all"}
DNS_FAMILIES = {0: "auto", 1: "auto", 2: "v4_only", 3: "v6_only", 4: "v4_preferred", 5: "all"}
#: Envoy's default in seconds.
_REFRESH = 5.0
_LEAST = 0.001
_DNS_PORT = 53
#: c-ares' where only the other is said: seconds of a try, and how many there are.
_TIMEOUT, _TRIES = 5, 4


@dataclass(frozen=True, slots=True)
class Resolving:
    """See the fields of :class:`meshlib.model.cluster.Cluster` that are called so."""

    refresh: float = _REFRESH
    respect_ttl: bool = False
    family: str = "auto"
    failure: tuple[float, float] | None = None
    jitter: float = 0.0
    servers: NameServers | None = None


def resolving(
    owner: WireMessage, path: str, report: Report, families: Mapping[int, str], servers: NameServers | None
) -> Resolving:
    """Of a Cluster, or of a DnsCluster. ``servers``: who is asked."""
    family = families.get(owner.dns_lookup_family)
    if family is None:
        report.problem(join(path, "dns_lookup_family"), f"{owner.dns_lookup_family} is not known")
    refresh = seconds(owner, "dns_refresh_rate", path, report)
    if refresh is not None and refresh < _LEAST:
        report.problem(join(path, "dns_refresh_rate"), f"must be at least {_LEAST} s")
    return Resolving(
        refresh or _REFRESH,
        bool(owner.respect_dns_ttl),
        family or "auto",
        _failure(owner, path, report),
        seconds(owner, "dns_jitter", path, report) or 0.0,
        servers,
    )


def _failure(owner: WireMessage, path: str, report: Report) -> tuple[float, float] | None:
    """The first pause after a failure, and the longest."""
    if not owner.HasField("dns_failure_refresh_rate"):
        return None
    held, path = owner.dns_failure_refresh_rate, join(path, "dns_failure_refresh_rate")
    base = seconds(held, "base_interval", path, report)
    most = seconds(held, "max_interval", path, report)
    if base is None or base <= _LEAST:
        report.problem(join(path, "base_interval"), f"must be more than {_LEAST} s")
        return None
    if most is not None and (most <= _LEAST or most < base):
        report.problem(join(path, "max_interval"), f"must be at least base_interval ({base:g} s)")
    return base, 10 * base if most is None else most


def name_servers(cluster: WireMessage, path: str, report: Report) -> NameServers | None:
    """Who is asked: ``typed_dns_resolver_config``, and where it is not set what it came in the place of; None: nothing is said."""
    if cluster.HasField("typed_dns_resolver_config"):
        return typed_servers(cluster, path, report)
    if cluster.HasField("dns_resolution_config"):
        held = cluster.dns_resolution_config
        return _servers(
            held.resolvers, held.dns_resolver_options, join(path, "dns_resolution_config"), report
        )
    if not (len(cluster.dns_resolvers) or cluster.use_tcp_for_dns_lookups):
        return None
    addresses = _addresses(cluster.dns_resolvers, join(path, "dns_resolvers"), report)
    return NameServers(addresses, tcp=bool(cluster.use_tcp_for_dns_lookups))


def typed_servers(owner: WireMessage, path: str, report: Report) -> NameServers | None:
    """Of a Cluster or a DnsCluster, by ``typed_dns_resolver_config`` alone."""
    if not owner.HasField("typed_dns_resolver_config"):
        return None
    outer = owner.typed_dns_resolver_config.typed_config
    path = join(path, "typed_dns_resolver_config")
    try:
        name = type_name(outer.type_url)
    except ValueError as error:
        report.problem(join(path, "typed_config"), str(error))
        return None
    if name != _CARES:
        report.ignore(path, f"{name[:100]}: names are resolved as this process is told to")
        return None
    path = join(path, "typed_config")
    held = unpacked(outer, path, report, _CARES)
    if held is None:
        return None
    walk(held, path, report)
    options = held.dns_resolver_options
    made = _servers(held.resolvers, options, path, report, rotate=bool(held.rotate_nameservers))
    made = replace(made, routable=bool(held.filter_unroutable_families))
    if held.use_resolvers_as_fallback:
        # The system always has one, if only this machine itself.
        made = replace(made, addresses=())
    return _patient(made, held, path, report)


def _patient(made: NameServers, held: WireMessage, path: str, report: Report) -> NameServers:
    """With the times that it says, in c-ares' terms."""
    timeout, tries = number(held, "query_timeout_seconds"), number(held, "query_tries")
    for field, value in (("query_timeout_seconds", timeout), ("query_tries", tries)):
        if value == 0:
            report.problem(join(path, field), "must be at least 1")
    if not timeout and not tries:
        return made
    one = float(timeout or _TIMEOUT)
    return replace(made, timeout=one, lifetime=one * (tries or _TRIES))


def _servers(
    resolvers: WireMessage, options: WireMessage, path: str, report: Report, *, rotate: bool = False
) -> NameServers:
    return NameServers(
        _addresses(resolvers, join(path, "resolvers"), report),
        tcp=bool(options.use_tcp_for_dns_lookups),
        search=not options.no_default_search_domain,
        rotate=rotate,
    )


def _addresses(resolvers: WireMessage, path: str, report: Report) -> tuple[Address, ...]:
    found: list[Address] = []
    for index, item in enumerate(resolvers):
        here = f"{path}[{index}]"
        address = numeric(item, here, report, least_port=0)
        if address is not None and address.unix:
            report.problem(here, "must be an IP address and a port")
        elif address is not None:
            found.append(address if address.port else Address(address.host, _DNS_PORT))
    return tuple(found)
