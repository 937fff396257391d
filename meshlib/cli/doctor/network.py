"""Checks of what is called: control planes, names, endpoints, listeners, proxies, clocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from meshlib.cli.doctor.case import Case, named
from meshlib.cli.doctor.catalogue import found
from meshlib.cli.doctor.probes import Reached, address_of, loopback
from meshlib.cli.findings import Finding
from meshlib.cli.render import duration
from meshlib.observe.facts import ClusterFacts, ListenerFacts, ServerFacts

__all__ = [
    "clocks",
    "control_plane",
    "endpoints",
    "listeners",
    "proxies",
    "refused",
    "resolution",
    "services",
    "sources",
]

#: Seconds that clocks may differ. A ``Date`` has whole seconds, and an answer takes its time.
_SKEW = 10.0

_NOBODY = Reached("it was not tried")

#: Kinds of sources that have findings of their own.
_OWN_KINDS = ("static", "dns", "xds")


# --- the control plane ---------------------------------------------------------------------------------------------------


def control_plane(case: Case) -> Iterator[Finding]:
    """Whether each server of the bootstrap can be reached and answers; who it is, and who we are to it."""
    servers = case.facts["config"]["servers"]
    whole = next((one for one in case.sources if one["kind"] == "xds"), None)
    serves = whole is not None and whole["state"] in ("stale", "ready")
    for server in servers:
        title = f"xds {server['uri']}"  # where there are several, each has its own
        source = next((one for one in case.sources if one["name"] == title), whole)
        state = source["state"] if source is not None else "failed"
        reached = case.seen.reached.get(address_of(server["uri"]))
        handshake = case.seen.handshakes.get(server["uri"], "")
        if reached is not None and reached.unresolved:
            continue  # the name is the finding
        if reached is not None and reached.problem:
            yield _unreachable(case, server, reached.problem, source, serves=serves)
        elif handshake:
            summary = f"TLS with the control plane {server['uri']} fails: {handshake}"
            yield found("control-plane-tls", summary, *_last_error(source))
        elif source is not None and state not in ("ready", "idle") and _mine(source, server, servers):
            yield _silent(source, server, serves=serves)
    of_servers = [one for one in case.sources if one["kind"] == "xds" and one is not whole]
    for source in of_servers or case.sources:
        if source["kind"] == "xds" and source["state"] == "ready":
            yield _told(case, source)


def _mine(source: dict[str, Any], server: ServerFacts, servers: list[ServerFacts]) -> bool:
    return source["server"] == server["uri"] or server is servers[0]


def _unreachable(
    case: Case, server: ServerFacts, problem: str, source: dict[str, Any] | None, *, serves: bool
) -> Finding:
    return found(
        "control-plane-unreachable",
        f"the control plane {server['uri']} cannot be reached: {problem}",
        *_last_error(source),
        less=serves,
        key=case.facts["config"]["given"].get("xds", "xds.server"),
    )


def _silent(source: dict[str, Any], server: ServerFacts, *, serves: bool) -> Finding:
    how = "TLS" if server["tls"] else "plain text"
    return found(
        "control-plane-silent",
        f"the control plane {server['uri']} takes connections and does not answer ({how})",
        f"its source is {source['state']}, for {duration(source['since'])}",
        *_last_error(source),
        less=serves,
    )


def _last_error(source: dict[str, Any] | None) -> list[str]:
    return [source["last_error"]] if source is not None and source["last_error"] else []


def _told(case: Case, source: dict[str, Any]) -> Finding:
    status = case.facts["status"]
    node = status["node"] if status is not None else {}
    servers = case.facts["config"]["servers"]
    tls = any(server["tls"] for server in servers if server["uri"] == source["server"])
    holds = ", ".join(f"{count} {kind}" for kind, count in source["resources"].items() if count)
    evidence = (
        f"node {node.get('id', '')}, cluster {node.get('cluster') or 'none'}",
        *(("TLS" if tls else "plain text",) if servers else ()),
        f"it has told: {holds or 'nothing yet; hosts of the target view are asked for by name (--name HOST)'}",
    )
    says = (
        f"the control plane {source['server']} answers"
        if servers
        else f"the files in {source['server']} are read"
    )
    return found("control-plane", says, *evidence)


def sources(case: Case) -> Iterator[Finding]:
    """Files that cannot be read any more. Control planes and names have findings of their own; one that is a directory has no server."""
    serverless = not case.facts["config"]["servers"]
    for source in case.sources:
        own = source["kind"] in _OWN_KINDS and not (serverless and source["kind"] == "xds")
        if source["kind"] == "last_good":
            if source["last_error"]:
                yield found("source-failed", source["last_error"], less=True)
        elif not own and source["state"] in ("failed", "stale"):
            yield found(
                "source-failed",
                f"{source['name']} ({source['kind']}) cannot be read: {source['last_error'] or source['state']}",
                less=source["state"] == "stale",
            )


def refused(case: Case) -> Iterator[Finding]:
    """What a source refused, lacks, or waits for."""
    for source in case.sources:
        if source["kind"] == "last_good":
            continue  # what is not kept on disk is in force all the same
        for item in source["rejected"]:
            name = f"{item['type']} {item['resource']}".strip()
            yield found("resource-rejected", f"{source['name']}: {name} was refused", *item["problems"])
        if source["missing"]:
            summary = f"{source['name']}: calls fail for want of {named(source['missing'])}"
            yield found("resource-missing", summary, *source["missing"])
        if source["waiting"] and source["state"] == "ready":
            summary = f"{source['name']}: waiting for {named(source['waiting'])}"
            yield found("resource-waiting", summary, *source["waiting"])


# --- names and endpoints -------------------------------------------------------------------------------------------------


def resolution(case: Case) -> Iterator[Finding]:
    """Names without an address: those that the mesh looks up, and those that the system does."""
    for cluster in case.facts["clusters"]:
        if cluster["unresolved"]:
            yield found(
                "name-does-not-resolve",
                f"{cluster['name']}: {named(cluster['dns'])} has no address",
                cluster["unresolved"],
            )
        elif cluster["resolving"]:
            yield found(
                "name-does-not-resolve", f"{cluster['name']}: nobody answered for {named(cluster['dns'])} yet"
            )
    for what, address in _dialled(case):
        reached = case.seen.reached.get(address)
        if reached is not None and reached.unresolved:
            yield found("name-does-not-resolve", f"{what}: {address}: {reached.problem}")


def _dialled(case: Case) -> Iterator[tuple[str, str]]:
    """What is looked up when it is called."""
    for server in case.facts["config"]["servers"]:
        yield "the control plane", address_of(server["uri"])
    for cluster in case.facts["clusters"]:
        for address in cluster["endpoints"]:
            yield cluster["name"], address


def endpoints(case: Case) -> Iterator[Finding]:
    """Ports that nobody listens on, and clusters without any."""
    for cluster in case.facts["clusters"]:
        tried = {one: case.seen.reached[one] for one in cluster["endpoints"] if one in case.seen.reached}
        dead = {one: seen.problem for one, seen in tried.items() if seen.problem and not seen.unresolved}
        gone = sum(bool(seen.problem) for seen in tried.values())
        if dead:
            some = f"{len(dead)} of {len(tried)} endpoints" if len(tried) > 1 else "its endpoint"
            yield found(
                "endpoint-not-listening",
                f"{cluster['name']}: nobody listens at {some}",
                *(f"{address}: {problem}" for address, problem in dead.items()),
                less=gone < len(cluster["endpoints"]),
                where=_where(case, cluster),
            )
        elsewhere = (
            cluster["unresolved"]
            or cluster["resolving"]
            or cluster["discovery"] in ("original_dst", "aggregate")
        )
        if not cluster["endpoints"] and not elsewhere:
            # A control plane has clusters for services without a backend, and one that is a black hole.
            less = not _of_file(case, cluster)
            yield found(
                "endpoints-missing", f"{cluster['name']} has no endpoint ({cluster['source']})", less=less
            )
    mine = [
        one for cluster in case.facts["clusters"] for one in cluster["endpoints"] if one in case.seen.left
    ]
    if mine:
        yield found("endpoints-not-tried", f"{len(mine)} endpoints were not tried", *mine[:20])


def _where(case: Case, cluster: ClusterFacts) -> str:
    return f"services.{cluster['name']}" if _of_file(case, cluster) else f"cluster {cluster['name']}"


def _of_file(case: Case, cluster: ClusterFacts) -> bool:
    """Whether it is a service of the configuration file."""
    return any(
        item["view"] == "service" and (item["name"], item["source"]) == (cluster["name"], cluster["source"])
        for item in case.facts["listeners"]
    )


# --- listeners and services ----------------------------------------------------------------------------------------------


def listeners(case: Case) -> Iterator[Finding]:
    """Two listeners at one place, and a listener where somebody else listens."""
    sidecar = [item for item in case.facts["listeners"] if item["view"] == "sidecar"]
    by_address = _groups((address, item) for item in sidecar for address in item["addresses"])
    for (one, *others), shared in by_address:
        names = ", ".join(item["name"] for item in others)
        yield found(
            "listener-collision",
            f"listeners {one['name']} and {names} have one address: {named(shared)}",
            f"{one['name']} carries the calls",
        )
    for item in sidecar:
        taken = [
            address
            for address in item["addresses"]
            if loopback(address) and case.seen.reached.get(address, _NOBODY).problem == ""
        ]
        if taken:
            yield found(
                "listener-address-taken",
                f"listener {item['name']}: something listens at {named(taken)} too",
                "calls of this process to it are carried in the process",
            )
    told = {tuple(item["name"] for item in group) for group, _ in by_address}
    by_name = _groups(
        (f"{name} at port {port}", item)
        for item in sidecar
        for port in _ports(item)
        for name in item["domains"]
        if name != "*"
    )
    for group, names_ in by_name:
        if tuple(item["name"] for item in group) not in told:
            yield found(
                "virtual-host-overlap",
                f"listeners {' and '.join(item['name'] for item in group)} both serve {named(names_)}",
                *(f"{item['name']}: {', '.join(item['addresses'])}" for item in group),
            )


def _groups(pairs: Iterable[tuple[str, ListenerFacts]]) -> list[tuple[list[ListenerFacts], list[str]]]:
    """Listeners that have something in common, each group once, with all that it is."""
    holders: dict[str, list[ListenerFacts]] = {}
    for key, item in pairs:
        if not any(item is other for other in holders.get(key, ())):
            holders.setdefault(key, []).append(item)
    groups: dict[tuple[int, ...], tuple[list[ListenerFacts], list[str]]] = {}
    for key, items in holders.items():
        if len(items) > 1:
            groups.setdefault(tuple(map(id, items)), (items, []))[1].append(key)
    return list(groups.values())


def _ports(listener: ListenerFacts) -> list[str]:
    found_ = (
        address.rpartition(":")[2] for address in listener["addresses"] if not address.startswith("unix:")
    )
    return list(dict.fromkeys(found_))


def services(case: Case) -> Iterator[Finding]:
    """Two services for one host, two services of one endpoint."""
    mine = [item for item in case.facts["listeners"] if item["view"] == "service"]
    names = {item["name"] for item in mine}
    for group, (name,) in _groups((item["name"], item) for item in mine):
        said_by = [item["source"] for item in group]
        summary = f"service {name} is said by {' and by '.join(said_by)}"
        yield found("service-collision", summary, f"that of {said_by[0]} carries the calls")
    for name in sorted(names):
        host = name.rpartition(":")[0] if not name.endswith("]") else ""
        if host and host in names:
            yield found(
                "service-overlap",
                f"services {name} and {host} are of one host",
                f"calls to {name} go to the first, those to other ports of the host to the second",
            )
    for item in case.facts["listeners"]:
        behind = [name for name in dict.fromkeys((item["name"], *item["domains"])) if name in names]
        if item["view"] != "service" and behind:
            yield found(
                "service-overlap",
                f"service {named(behind)} stands in front of listener {item['name']} of {item['source']}",
                "the configuration file wins over the control plane",
            )
    yield from _shared(case, names)


def _shared(case: Case, names: set[str]) -> Iterator[Finding]:
    holders: dict[str, list[str]] = {}
    for cluster in case.facts["clusters"]:
        if cluster["name"] in names:
            for address in dict.fromkeys(cluster["endpoints"]):
                holders.setdefault(address, []).append(cluster["name"])
    for address, clusters in holders.items():
        if len(set(clusters)) > 1:
            yield found("endpoint-shared", f"{address} is an endpoint of {named(clusters)}")


# --- on the way ----------------------------------------------------------------------------------------------------------


def proxies(case: Case) -> Iterator[Finding]:
    """A proxy of the environment that takes calls away from the mesh."""
    process = case.facts["process"]
    if case.facts["config"]["disabled"]:
        return
    without = {"no": process["no_proxy"]}
    for scheme in ("http", "https"):
        proxy = process["proxies"].get(scheme) or process["proxies"].get("all")
        hosts = [host for host in _hosts(case, scheme) if not proxy_bypass_environment(host, without)]
        if proxy and hosts:
            yield found(
                "proxy-wins",
                f"calls to {named(hosts)} go through the proxy {proxy}, and not through the mesh",
                f"NO_PROXY is {process['no_proxy'] or 'not set'}",
                "requests and httpx go by these variables; aiohttp only where trust_env is set",
                hosts=",".join(hosts[:10]),
            )


def _hosts(case: Case, scheme: str) -> list[str]:
    """The hosts that the mesh knows by their whole name: those of port 443 by https, the others by http."""
    known: dict[str, None] = {}
    for item in case.facts["listeners"]:
        names = [item["name"]] if item["view"] != "sidecar" else item["domains"]
        addresses = [one for one in item["addresses"] if loopback(one) and not one.startswith("unix:")]
        for name in (*names, *addresses):
            host, colon, port = name.rpartition(":") if not name.endswith("]") else (name, "", "")
            host = host if colon and port.isdecimal() else name
            secure = colon != "" and port == "443"
            if host and not {"*", "/"} & set(host) and secure == (scheme == "https"):
                known[host] = None
    return list(known)


def clocks(case: Case) -> Iterator[Finding]:
    """Clocks of those that were asked for the time, against ours."""
    mine = {one for cluster in case.facts["clusters"] for one in cluster["endpoints"]}
    told = {
        address: reached.skew
        for address, reached in case.seen.reached.items()
        if reached.skew is not None and address in mine
    }
    off = {address: skew for address, skew in told.items() if abs(skew) > _SKEW}
    if not off:
        return
    lines = [
        f"{address} is {duration(abs(skew))} {'ahead' if skew > 0 else 'behind'}"
        for address, skew in off.items()
    ]
    agree = [address for address in told if address not in off]
    if agree:
        lines.append(f"{named(agree)} and this machine agree")
    whose = "that of this machine or theirs" if not agree else "theirs, as it seems"
    yield found("clock-skew", f"a clock is wrong, {whose}: {lines[0]}", *lines)
