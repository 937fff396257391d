"""The snapshot cache and the streams of an xDS v2 server, as go-control-plane 0.9 has them, with what can go wrong in it.

A watch is open from a request until its answer, and is kept by node. It is answered at once where the version of the node's
snapshot is not the request's, else when a snapshot of another version is set. What clears a node's state drops its watches,
and their streams never hear again. Not thread-safe: who uses it holds a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshlib.xds import schema

__all__ = ["Cache", "FetchError", "StreamState"]

_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"  # of v2, too: the same bytes


class FetchError(Exception):
    """Why a unary call has no answer: gRPC's status is UNKNOWN."""


@dataclass(slots=True, eq=False)
class _Watch:
    url: str
    names: frozenset[str]
    version: str
    answer: Callable[[str, schema.WireMessage], None]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    version: str
    resources: Mapping[str, Sequence[tuple[str, schema.WireMessage]]]

    def of(self, url: str) -> str:
        """The version of a type: none where the snapshot has nothing to do with it."""
        return self.version if url in self.resources else ""

    def response(self, url: str, names: frozenset[str]) -> schema.WireMessage:
        made = schema.message(_RESPONSE)(version_info=self.of(url), type_url=url)
        made.resources.extend(
            each for name, each in self.resources.get(url, ()) if not names or name in names
        )
        return made


class Cache:
    """Snapshots by node, and who waits for the next."""

    def __init__(self) -> None:
        self.snapshots: dict[str, _Snapshot] = {}
        self._watches: dict[str, list[_Watch]] = {}

    def set(
        self, node: str, version: str, resources: Mapping[str, Sequence[tuple[str, schema.WireMessage]]]
    ) -> None:
        """Publishes, and answers those whose version is another."""
        snapshot = self.snapshots[node] = _Snapshot(version, resources)
        waiting, self._watches[node] = self._watches.get(node, []), []
        for watch in waiting:
            if snapshot.of(watch.url) != watch.version:
                watch.answer(watch.url, snapshot.response(watch.url, watch.names))
            else:
                self._watches[node].append(watch)

    def clear(self, node: str) -> None:
        """Forgets all about a node, and who watches it."""
        self.snapshots.pop(node, None)
        self._watches.pop(node, None)

    def watch(self, node: str, watch: _Watch) -> None:
        snapshot = self.snapshots.get(node)
        if snapshot is not None and snapshot.of(watch.url) != watch.version:
            watch.answer(watch.url, snapshot.response(watch.url, watch.names))
        else:
            self._watches.setdefault(node, []).append(watch)

    def unwatch(self, node: str, watch: _Watch) -> None:
        if watch in self._watches.get(node, ()):
            self._watches[node].remove(watch)

    def watching(self, node: str) -> int:
        return len(self._watches.get(node, ()))

    def fetch(self, node: str, url: str, request: Any) -> schema.WireMessage:
        """Raises FetchError."""
        snapshot = self.snapshots.get(node)
        if snapshot is None:
            raise FetchError(f'missing snapshot for "{node}"')
        if snapshot.of(url) == request.version_info:
            raise FetchError("skip fetch: version up to date")
        return snapshot.response(url, frozenset(request.resource_names))


class StreamState:
    """One stream: per type the open watch and the last nonce. Nonces count through all types."""

    def __init__(self, cache: Cache, default: str, send: Callable[[schema.WireMessage], None]) -> None:
        self._cache = cache
        self._default = default
        self._send = send
        self._node = ""
        self._nonces: dict[str, str] = {}
        self._watches: dict[str, _Watch] = {}
        self._count = 0

    def request(self, request: Any) -> str:
        """Takes a request up; what is wrong with it, or ``""``."""
        url = str(request.type_url) or self._default
        if not url:
            return "type URL is required for ADS"
        if request.HasField("node"):
            self._node = str(request.node.cluster)
        if self._nonces.get(url, "") not in ("", request.response_nonce):
            return ""  # of an older response, or of none
        self._unwatch(url)
        watch = _Watch(url, frozenset(request.resource_names), str(request.version_info), self._answer)
        self._watches[url] = watch
        self._cache.watch(self._node, watch)
        return ""

    def end(self) -> None:
        for url in list(self._watches):
            self._unwatch(url)

    def _unwatch(self, url: str) -> None:
        watch = self._watches.pop(url, None)
        if watch is not None:
            self._cache.unwatch(self._node, watch)

    def _answer(self, url: str, response: schema.WireMessage) -> None:
        self._count += 1
        response.nonce = self._nonces[url] = str(self._count)
        self._watches.pop(url, None)
        self._send(response)
