"""What a process tells `meshlib doctor` of its mesh and of itself: facts, JSON-ready, and no judgement of them.

The same facts are taken in the process that asks, where there is no other, and sent over the admin socket by one that runs.
Of the configuration go the names of files, servers and hosts; the value of a secret goes nowhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypedDict

from meshlib.config import bootstrap_text, doubts
from meshlib.config.identity import TOKEN
from meshlib.config.kinds import Filename, ListOf, MapOf
from meshlib.config.section import Section, Table, keys_of
from meshlib.config.source import Rank
from meshlib.errors import ConfigError
from meshlib.observe import surroundings
from meshlib.xds.bootstrap import ChannelKind, bootstrap_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshlib.config import Config
    from meshlib.model.cluster import Cluster
    from meshlib.model.listener import Listener
    from meshlib.model.route import Route, VirtualHost
    from meshlib.model.snapshot import Part, Snapshot
    from meshlib.model.status import Status
    from meshlib.model.tls import Tls
    from meshlib.xds.bootstrap import Bootstrap, Server

__all__ = [
    "ClusterFacts",
    "ConfigFacts",
    "Facts",
    "FileFacts",
    "ListenerFacts",
    "ServerFacts",
    "of_config",
    "of_mesh",
    "pairs_of",
    "plain",
]

#: What a file is, by the last word of its key; others are directories, or come and go.
_USES = {
    "ca": "ca",
    "ca_certificate_file": "ca",
    "ca_file": "ca",
    "call_creds": "token",
    "cert": "certificate",
    "cert_file": "certificate",
    "certificate_file": "certificate",
    "key": "key",
    "key_file": "key",
    "private_key_file": "key",
    "token": "token",
    "bootstrap": "bootstrap",
    "services_file": "configuration",
    "spiffe_trust_bundle_map_file": "configuration",
    "file": "configuration",
    "last_good": "state",
    "csds": "socket",
}


class FileFacts(TypedDict):
    """``use``: ``"ca"``, ``"certificate"``, ``"key"``, ``"token"``, ``"bootstrap"``, ``"configuration"``; ``"state"`` and ``"socket"``, which
    a mesh makes itself. The path is absolute.
    """

    key: str
    path: str
    use: str


class ServerFacts(TypedDict):
    """A control plane; the files are its channel's, ``""`` where there is none."""

    uri: str
    tls: bool
    ca: str
    cert: str
    key: str


class ConfigFacts(TypedDict):
    """``given``: the keys that somebody set, each with where. ``problems``: what is wrong with the bootstrap."""

    file: str
    services_file: str
    configured: bool
    disabled: bool
    given: dict[str, str]
    problems: list[str]
    doubts: list[str]
    files: list[FileFacts]
    servers: list[ServerFacts]
    skipped: list[str]
    sidecar: str
    sidecar_address: str
    kill_switch: str
    admin: bool
    runtime_dir: str
    tells_spent_retries: bool


class ListenerFacts(TypedDict):
    """``view``: ``"service"`` (of a file; ``name`` is its key), ``"sidecar"`` or ``"target"``. ``attempts``: the most that one of
    its routes makes of a call.
    """

    name: str
    source: str
    view: str
    addresses: list[str]
    domains: list[str]
    attempts: int


class ClusterFacts(TypedDict):
    """``resolving``: its endpoints come of names that were not answered yet. ``plain``: HTTP/1.1 without TLS. ``anybody``: TLS with some of
    its endpoints verifies nobody; ``closed``: why TLS with some cannot be had, in words.
    """

    name: str
    source: str
    discovery: str
    dns: list[str]
    unresolved: str
    resolving: bool
    http2: bool
    plain: bool
    anybody: bool
    closed: list[str]
    endpoints: list[str]


class Facts(TypedDict):
    """Of one mesh, with the process that it is in. ``status`` is ``Status.to_dict()``; None where no mesh could be made."""

    process: surroundings.ProcessFacts
    config: ConfigFacts
    status: dict[str, Any] | None
    listeners: list[ListenerFacts]
    clusters: list[ClusterFacts]


def of_mesh(config: Config, status: Status, snapshot: Snapshot, *, late: bool) -> Facts:
    """Of a mesh that runs. ``late``: gevent patched the process after the mesh was in use."""
    listeners = [facts for part in snapshot.parts for facts in _listeners(part)]
    said = of_config(config)
    if config.identity.chosen == "istio" and config.identity.token is None:
        said["files"].append(_file("identity.token", TOKEN))
    said["files"] += [
        file for part in snapshot.parts for cluster in part.clusters.values() for file in _tls_files(cluster)
    ]
    return Facts(
        process=surroundings.of_process(late=late, retried=any(item["attempts"] > 1 for item in listeners)),
        config=said,
        status=status.to_dict(),
        listeners=listeners,
        clusters=[_cluster(part, cluster) for part in snapshot.parts for cluster in part.clusters.values()],
    )


def plain(config: Config) -> Facts:
    """Of a configuration of which no mesh can be made."""
    return Facts(
        process=surroundings.of_process(late=False, retried=False),
        config=of_config(config),
        status=None,
        listeners=[],
        clusters=[],
    )


def pairs_of(files: Iterable[FileFacts]) -> set[tuple[str, str]]:
    """Certificate and private key of each place that has both."""
    places: dict[str, dict[str, str]] = {}
    for file in files:
        places.setdefault(file["key"].rpartition(".")[0], {})[file["use"]] = file["path"]
    return {
        (uses["certificate"], uses["key"]) for uses in places.values() if {"certificate", "key"} <= set(uses)
    }


# --- the configuration ---------------------------------------------------------------------------------------------------


def of_config(config: Config) -> ConfigFacts:
    """What it says of files, servers and hosts. Reads the bootstrap; raises nothing."""
    bootstrap: Bootstrap | None = None
    problems: tuple[str, ...] = ()
    if config.xds.configured and config.xds.path is None and not config.disabled:
        try:
            text, origin = bootstrap_text(config)
            bootstrap = bootstrap_of(config, text, origin, "")
        except ConfigError as problem:
            problems = problem.problems
    return ConfigFacts(
        file=config.file or "",
        services_file=config.services_file or "",
        configured=config.configured,
        disabled=config.disabled,
        given=_given(config),
        problems=list(problems),
        doubts=list(doubts(config)),
        files=[*_files(config), *(() if bootstrap is None else _bootstrap_files(bootstrap))],
        servers=[_server(server) for server in (() if bootstrap is None else bootstrap.all_servers)],
        skipped=[] if bootstrap is None else list(bootstrap.skipped),
        sidecar=config.sidecar.mode,
        sidecar_address=config.sidecar.address or "",
        kill_switch=config.adoption.kill_switch or "",
        admin=config.admin.enabled,
        runtime_dir=config.admin.runtime_dir or "",
        tells_spent_retries=config.spent_retries == "tell",
    )


def _given(config: Config) -> dict[str, str]:
    """Who said something of a table or key at the top; ``Config.source_of`` would look through all services for each."""
    said: dict[str, list[str]] = {}
    for path, source in config.sources.items():
        if path[0] in ("disabled", "sidecar", "xds") and source.rank is not Rank.DEFAULT:
            said.setdefault(str(path[0]), []).append(source.name)
    return {key: ", ".join(dict.fromkeys(names)) for key, names in said.items()}


def _server(server: Server) -> ServerFacts:
    channel = server.channel
    return ServerFacts(
        uri=server.uri,
        tls=channel.kind is ChannelKind.TLS,
        ca=channel.ca_file,
        cert=channel.cert_file,
        key=channel.key_file,
    )


def _files(config: Config) -> Iterator[FileFacts]:
    """The files that the configuration names, and itself; the socket that it says is served."""
    if config.file:
        yield _file("file", config.file)
    if config.admin.csds is not None and config.admin.csds.startswith("unix:"):
        yield _file("admin.csds", config.admin.csds.removeprefix("unix:"))
    for key, path in _named(config, ""):
        if key.rpartition(".")[2] in _USES:
            yield _file(key, path)


def _file(key: str, path: str) -> FileFacts:
    return FileFacts(key=key, path=os.path.abspath(path), use=_USES[key.rpartition(".")[2]])  # noqa: PTH100 - text in, text out


def _named(section: Section, prefix: str) -> Iterator[tuple[str, str]]:
    for key in keys_of(type(section)):
        value, here = getattr(section, key.name), f"{prefix}{key.name}"
        if value is None:
            continue
        if isinstance(key.kind, Filename):
            yield here, value
        elif isinstance(key.kind, Table):
            yield from _named(value, f"{here}.")
        elif isinstance(key.kind, MapOf) and isinstance(key.kind.item, Table):
            for name, item in value.items():
                yield from _named(item, f"{here}.{name}.")
        elif isinstance(key.kind, ListOf) and isinstance(key.kind.item, Table):
            for index, item in enumerate(value):
                yield from _named(item, f"{here}[{index}].")


def _bootstrap_files(bootstrap: Bootstrap) -> Iterator[FileFacts]:
    for server in bootstrap.all_servers:
        for key in ("ca_file", "cert_file", "key_file"):
            path = getattr(server.channel, key)
            if path:
                yield _file(f"xds_servers[{server.uri}].{key}", path)
        for path in server.channel.tokens:
            yield _file(f"xds_servers[{server.uri}].call_creds", path)
    for name, provider in bootstrap.providers.items():
        for key, path in provider.config.items():
            if key in _USES and isinstance(path, str) and path:
                yield _file(f"certificate_providers.{name}.{key}", path)


def _tls_files(cluster: Cluster) -> Iterator[FileFacts]:
    """The files that connections to its endpoints need."""
    matched = ((f"[{index}]", match.tls) for index, match in enumerate(cluster.tls_matches))
    for where, tls in (("", cluster.tls), *matched):
        for key, path in _named_files(tls) if tls is not None else ():
            yield _file(f"clusters.{cluster.name}.tls{where}.{key}", path)


def _named_files(tls: Tls) -> Iterator[tuple[str, str]]:
    if tls.validation is not None and tls.validation.roots.file:
        yield "ca_file", tls.validation.roots.file
    for key, pem in (("cert_file", "chain"), ("key_file", "key")) if tls.certificate is not None else ():
        path = getattr(tls.certificate, pem).file
        if path:
            yield key, path


# --- what is in force ----------------------------------------------------------------------------------------------------


def _listeners(part: Part) -> Iterator[ListenerFacts]:
    for key, listener in part.services.items():
        yield _listener(part, key, "service", listener)
    for listener in part.sidecar:
        yield _listener(part, listener.name, "sidecar", listener)
    for name, listener in part.targets.items():
        yield _listener(part, name, "target", listener)


def _listener(part: Part, name: str, view: str, listener: Listener) -> ListenerFacts:
    hosts = list(_virtual_hosts(listener))
    return ListenerFacts(
        name=name,
        source=part.source,
        view=view,
        addresses=[str(address) for address in listener.addresses],
        domains=list(dict.fromkeys(domain for host in hosts for domain in host.domains)),
        attempts=max((_attempts(host, route) for host in hosts for route in host.routes), default=1),
    )


def _virtual_hosts(listener: Listener) -> Iterable[VirtualHost]:
    for chain in listener.chains:
        if chain.http is not None and chain.http.routes is not None:
            yield from chain.http.routes.virtual_hosts


def _attempts(host: VirtualHost, route: Route) -> int:
    policy = getattr(route.action, "retry", None) or host.retry
    return 1 if policy is None else policy.retries + 1


def _cluster(part: Part, cluster: Cluster) -> ClusterFacts:
    return ClusterFacts(
        name=cluster.name,
        source=part.source,
        discovery=cluster.discovery.value,
        dns=[target.name for target in cluster.dns],
        unresolved=cluster.unresolved,
        resolving=bool(cluster.dns) and cluster.assignment is None,
        http2=cluster.http2,
        plain=not cluster.http2 and cluster.tls is None and not cluster.tls_matches,
        anybody=any(tls.unverified and not tls.closed for tls in _demands(cluster)),
        closed=sorted({tls.closed for tls in _demands(cluster)} - {""}),
        endpoints=[]
        if cluster.assignment is None
        else [str(endpoint.address) for endpoint in cluster.assignment.endpoints],
    )


def _demands(cluster: Cluster) -> list[Tls]:
    """What TLS with its endpoints must be."""
    return [tls for tls in (cluster.tls, *(each.tls for each in cluster.tls_matches)) if tls is not None]
