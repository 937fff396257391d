"""Whether a name can be called, and what it still lacks, in words."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.core.refusals import without_answer
from meshlib.errors import NotReady
from meshlib.model.address import Address
from meshlib.model.cluster import Discovery
from meshlib.model.hosts import ascii_host, canonical_host
from meshlib.model.route import Forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Upstream
    from meshlib.model.cluster import Cluster
    from meshlib.model.route import VirtualHost
    from meshlib.runtime.runtime import Runtime

__all__ = ["Missing", "Target", "lacks", "parse", "wait"]


class Target:
    """A name that somebody waits for: ``host`` or ``host:port``."""

    __slots__ = ("authority", "host", "port")

    def __init__(self, authority: str, host: str, port: int | None) -> None:
        self.authority = authority
        self.host = host
        self.port = port


class Missing:
    """What a target lacks: ``text``, ``""`` if nothing; ``final``: waiting will not help."""

    __slots__ = ("final", "text")

    def __init__(self, text: str = "", *, final: bool = False) -> None:
        self.text = text
        self.final = final


READY = Missing()


def parse(name: str) -> Target:
    """Raises ValueError that says what is wrong with ``name``."""
    if "://" in name or "/" in name:
        raise ValueError(f"{name!r}: a host or host:port, without scheme and path")
    address = Address.parse(name, default_port=80)
    explicit = not name.endswith("]") and name != address.host
    return Target(ascii_host(name), canonical_host(address.host), address.port if explicit else None)


def wait(runtime: Runtime, names: tuple[str, ...], timeout: float) -> None:
    """Block until every name can be called. Raises NotReady that says for each what it lacks, and ValueError."""
    targets = [parse(name) for name in names]
    clock = runtime.clock
    until = clock.now() + timeout
    changed = threading.Event()
    cancel = runtime.store.on_change(changed.set)
    try:
        while True:
            changed.clear()
            missing = _missing(runtime, targets)
            if not missing:
                return
            remaining = until - clock.now()
            if remaining <= 0 or all(lack.final for lack in missing.values()) or runtime.closed:
                texts = {name: lack.text for name, lack in missing.items()}
                raise NotReady("; ".join(f"{name}: {text}" for name, text in texts.items()), missing=texts)
            # Endpoints that come back from an ejection tell nobody: look again now and then.
            clock.wait(changed, min(remaining, 0.25))
    finally:
        cancel()


def _missing(runtime: Runtime, targets: list[Target]) -> dict[str, Missing]:
    if not targets:
        return _silent_sources(runtime)
    found = {target.authority: lacks(runtime, target) for target in targets}
    return {name: lack for name, lack in found.items() if lack.text}


def _silent_sources(runtime: Runtime) -> dict[str, Missing]:
    """The sources that have not said anything yet, and the clusters that wait for the process's identity."""
    found = {}
    for source in runtime.feed.statuses():
        if source.kind != "last_good" and source.state in ("idle", "connecting", "failed"):
            where = f" {source.server}" if source.server else ""
            found[source.name + where] = Missing(source.last_error or source.state)
    for part in runtime.store.snapshot.parts:
        for name in part.identified:
            if part.lacking.get(name) == "":
                found[f"cluster {name}"] = Missing(runtime.feed.awaits(part.source, name))
    return found


def lacks(runtime: Runtime, target: Target) -> Missing:
    """What ``target`` still lacks before a call to it can be sent. What it needs is asked for, without waiting."""
    resolution = runtime.view.resolve("http", target.host, target.port, target.authority)
    if resolution.plain or (resolution.handed is not None and resolution.via in ("mesh", "sidecar")):
        return READY
    if resolution.via == "wait":
        if runtime.feed.refusal and resolution.handed is None:
            return Missing(runtime.feed.refusal, final=True)
        runtime.want(resolution.name, target.authority)
        waits = runtime.feed.pending(resolution.name) if resolution.name else ""
        return Missing("; ".join((waits or f"waiting: {resolution.reason}", *resolution.words()[1:])))
    if resolution.via == "direct":
        return _unknown(runtime, resolution)
    if resolution.via != "mesh":
        return Missing("; ".join(filter(None, resolution.words())) or "no source knows it")
    runtime.want(resolution.name, target.authority)
    return _clusters(runtime, target, resolution)


def _unknown(runtime: Runtime, resolution: Resolution) -> Missing:
    if not runtime.feed.grows:
        words = "no service of the configuration, and there is no control plane to ask"
        return Missing("; ".join((words, *resolution.words()[1:])), final=True)
    pending = runtime.feed.pending(resolution.name) if resolution.name else ""
    why, *meant = resolution.words()
    return Missing("; ".join((pending or "no source knows it" + (f" ({why})" if why else ""), *meant)))


def _clusters(runtime: Runtime, target: Target, resolution: Resolution) -> Missing:
    """Every cluster that the host's routes name and that exists must have had an answer, and one must have somebody to
    call. Routes may name clusters that never exist (Istio's do): those alone are not waited for.
    """
    routes = resolution.routes
    host = routes.virtual_host(target.authority) if routes is not None else None
    if host is None:
        return Missing(f"listener {resolution.name or target.authority!r} has no virtual host for it")
    names = sorted(set(_named(host.host)))
    found = {name: runtime.clusters.upstream(resolution.part, name) for name in names}
    awaited = [name for name, cluster in found.items() if cluster == ""]
    if awaited:
        lacks = runtime.feed.pending(resolution.name) if resolution.name else ""
        words = (f"{name!r}, which {runtime.feed.awaits(resolution.part, name)}" for name in awaited)
        return Missing(lacks or "waiting for cluster " + ", ".join(words))
    known = {name: cluster for name, cluster in found.items() if not isinstance(cluster, str)}
    silent = [name for name, live in known.items() if _unanswered(live.cluster)]
    if silent:
        return Missing("waiting for the endpoints of cluster " + _reasons(known, silent))
    if not names or any(_callable(live) for live in known.values()):
        return READY
    if not known:
        lacks = ", ".join(f"{name!r}, which {why}" for name, why in found.items())
        return Missing(f"its routes name only clusters that are not there: {lacks}")
    return Missing("no healthy endpoint in cluster " + _reasons(known, known))


def _reasons(known: Mapping[str, Upstream], names: Iterable[str]) -> str:
    """Clusters by name, each with what is known of why it has nobody."""
    return ", ".join(f"{name!r}{without_answer(known[name].cluster)}" for name in names)


def _named(host: VirtualHost) -> Iterator[str]:
    """The clusters that are named in the configuration; those that a header names are not known before the call."""
    for route in host.routes:
        action = route.action
        if isinstance(action, Forward):
            if action.cluster:
                yield action.cluster
            yield from (item.cluster for item in action.weighted if item.cluster and item.weight)


def _unanswered(cluster: Cluster) -> bool:
    return cluster.assignment is None and cluster.discovery is not Discovery.ORIGINAL_DST


def _callable(live: Upstream) -> bool:
    if live.cluster.discovery is Discovery.ORIGINAL_DST:
        return True
    from meshlib.core.upstream import PickContext

    return live.peek(PickContext()) is not None
